"""`twin estimate soc` and `twin identify`: what they read, what they refuse and how."""

import numpy as np
import pandas as pd
import pytest
from typer.testing import CliRunner

from twin.cli import app
from twin.estimate import EstimateError, read_recording

RUN = CliRunner()


def table(n=400):
    """A cell that is discharged at 1 A with pulses; current positive on discharge."""
    t_s = np.arange(n, dtype=float)
    amps = 1.0 + 2.0 * (t_s % 40 < 10)
    soc = 0.9 - np.cumsum(amps) / 3600 / 2.778
    return pd.DataFrame({"t_s": t_s, "V": 3.3 + 0.8 * soc - 0.03 * amps, "I": amps, "T_C": 25.0, "note": 1})


def estimate(path, out, *words):
    return RUN.invoke(
        app, ["estimate", "soc", str(path), "--cell", "lghg2_measured", "--out", str(out), *words]
    )


@pytest.mark.parametrize("estimator", ["counting", "ekf", "ukf", "firmware"])
@pytest.mark.parametrize("kind", ["csv", "parquet"])
def test_writes_a_row_for_each_sample(tmp_path, estimator, kind):
    path, out = tmp_path / f"run.{kind}", tmp_path / "soc.csv"
    getattr(table(), f"to_{kind}")(path, index=False)
    done = estimate(path, out, "--estimator", estimator, "--initial-soc", "0.9")
    assert done.exit_code == 0, done.output
    soc = pd.read_csv(out)
    assert list(soc.columns) == ["t_s", "soc", "soc_sigma"]
    assert len(soc) == 400
    assert soc["soc"].between(0, 1).all()
    assert (soc["soc_sigma"] > 0).all()
    assert not list(tmp_path.glob("*.part"))


def test_the_sign_is_seen_in_the_voltage_or_stated(tmp_path):
    given = table()
    turned = given.assign(I=-given["I"])
    given.to_csv(tmp_path / "a.csv", index=False)
    turned.to_csv(tmp_path / "b.csv", index=False)
    a, b = read_recording(tmp_path / "a.csv"), read_recording(tmp_path / "b.csv")
    assert (a.sign, b.sign) == ("discharge-positive", "charge-positive")
    np.testing.assert_array_equal(a.current_A, b.current_A)
    stated = read_recording(tmp_path / "b.csv", "discharge-positive")
    np.testing.assert_array_equal(stated.current_A, -a.current_A)
    offset = read_recording(tmp_path / "b.csv", current_offset_A=0.5)
    np.testing.assert_allclose(offset.current_A, a.current_A - 0.5)


def broken(column, row, value):
    frame = table().astype(object)
    frame.loc[row, column] = value
    return frame


@pytest.mark.parametrize(
    ("frame", "words", "said"),
    [
        (broken("V", 6, "nan"), [], "column V, row 7: nan is not a finite number"),
        (broken("I", 3, "x"), [], "column I, row 4: 'x' is not a number"),
        (broken("T_C", 3, ""), [], "column T_C, row 4: '' is not a number"),
        (broken("t_s", 9, 5.0), [], "column t_s, row 10: 5 s does not come after 8 s"),
        (broken("t_s", 9, 8.0), [], "column t_s, row 10: 8 s does not come after 8 s"),
        (broken("V", 2, 51.2), [], "column V, row 3: 51.2 is outside 0…6 V of one cell"),
        (broken("T_C", 1, 298.15), [], "column T_C, row 2: 298.15 is outside"),
        (
            table().drop(columns="T_C"),
            [],
            "no column 'T_C'; it has t_s, V, I, note; or state one temperature",
        ),
        (table().rename(columns={"I": "Amps"}), [], "no column 'I'; it has t_s, V, Amps, T_C, note"),
        (table(0), [], "no rows"),
        (table(), ["--cell", "lghg2"], "no cell named 'lghg2'; expected one of"),
        (
            table(),
            ["--estimator", "efk"],
            "no estimator named 'efk'; expected one of counting, ekf",
        ),
        (table(), ["--sign", "minus"], "no sign named 'minus'"),
        (table(), ["--initial-soc", "90"], "initial state of charge: 90.0 is outside 0…1"),
        (table(), ["--capacity", "0"], "capacity (Ah): 0.0 is outside"),
        (table(), ["--current-offset", "nan"], "offset of the current: nan is not a finite number"),
        (table().drop(columns="T_C"), ["--temperature", "nan"], "temperature: nan is outside"),
        (table(), ["--column", "temp"], "--column temp: expected NAME=HEADER"),
    ],
)
def test_wrong_input_is_named_and_nothing_is_written(tmp_path, frame, words, said):
    path, out = tmp_path / "run.csv", tmp_path / "soc.csv"
    frame.to_csv(path, index=False)
    done = estimate(path, out, *words)
    assert getattr(done.exception, "exit_code", None) == 2
    assert said in str(done.exception)
    assert not out.exists()


def test_files_that_are_none(tmp_path):
    (tmp_path / "a.parquet").write_bytes(b"PAR1 not really")
    (tmp_path / "a.txt").write_text("t_s,V,I,T_C\n0,3.7,1,25\n")
    (tmp_path / "empty.csv").write_text("")
    for name, said in (
        ("a.parquet", "not a readable parquet"),
        ("a.txt", "cannot read .txt"),
        ("empty.csv", "not a readable csv"),
        ("none.csv", "no such file"),
    ):
        with pytest.raises(EstimateError, match=said):
            read_recording(tmp_path / name)


def test_another_name_and_one_temperature_for_all(tmp_path):
    table().rename(columns={"V": "volts"}).drop(columns="T_C").to_csv(tmp_path / "a.csv", index=False)
    read = read_recording(tmp_path / "a.csv", temperature_C=10.0, columns={"V": "volts"})
    assert np.all(read.temperature_K == 283.15)


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["nothing"], "neither a file nor a recipe; recipes are chen2020"),
        (["inr20r"], "needs --data"),
        (["run.csv", "--name", "My Cell", "--capacity", "2"], "--name My Cell: expected small letters"),
        (["run.csv", "--name", "mine"], "--capacity None: expected the capacity of the cell in Ah"),
        (["run.csv", "--name", "mine", "--capacity", "0.05"], "counted charge is at -5 %"),
        (["flat.csv", "--name", "mine", "--capacity", "2"], "the current never changes"),
        (["short.csv", "--name", "mine", "--capacity", "2"], "20 samples; at least 200"),
    ],
)
def test_identify_says_what_is_missing(tmp_path, monkeypatch, words, said):
    monkeypatch.chdir(tmp_path)
    table().to_csv("run.csv", index=False)
    table().assign(I=1.0).to_csv("flat.csv", index=False)
    table(20).to_csv("short.csv", index=False)
    done = RUN.invoke(app, ["identify", *words, "--out", str(tmp_path)])
    assert getattr(done.exception, "exit_code", None) == 2, done.output
    assert said in str(done.exception)
    assert not list(tmp_path.glob("*.yaml"))
