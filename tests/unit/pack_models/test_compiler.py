"""Compiler of cell models: arithmetic, what it recognises and refuses, how cells behave in company."""

import ctypes
import json
import warnings

import numpy as np
import pytest

from pack_models.cells.compiled_cell import CompiledBank, design_of
from pack_models.cells.compiler import build
from pack_models.cells.compiler import compiled as module
from pack_models.cells.compiler.compiled import compiled
from pack_models.cells.compiler.engine import CellStepError, CompiledCells
from pack_models.cells.compiler.graph import Graph, Table
from pack_models.cells.compiler.source import ModelError, Source, bpx_file, discretise, parameter_set
from pack_models.cells.compiler.structure import analyse
from pack_models.cells.compiler.validate import BPX, data_folder
from pack_models.layout import Layout

ROOM_K = 298.15
HAS_BPX = (data_folder() / "bpx" / BPX).exists()
needs_bpx = pytest.mark.skipif(not HAS_BPX, reason=f"no {BPX}: set TWIN_DATA to the shared data")


# ---- arithmetic ---------------------------------------------------------------------------------------

FUNCTIONS = {
    "exp": (np.exp, -700.0, 700.0, 1e-15, 0.0),
    "expm1": (np.expm1, -40.0, 40.0, 2e-15, 1e-17),
    "log": (np.log, 1e-300, 1e300, 1e-15, 1e-16),
    "sqrt": (np.sqrt, 0.0, 1e10, 1e-16, 0.0),
    "tanh": (np.tanh, -30.0, 30.0, 2e-15, 1e-17),
    "sinh": (np.sinh, -30.0, 30.0, 3e-15, 1e-17),
    "cosh": (np.cosh, -30.0, 30.0, 2e-15, 0.0),
    "asinh": (np.arcsinh, -1e6, 1e6, 3e-15, 3e-16),
}


@pytest.fixture(scope="module")
def vector_library():
    text = '#include "vecmath.h"\n' + "".join(
        f"void many_{name}(int64_t n, const v *x, v *y) "
        f"{{ for (int64_t i = 0; i < n; i++) y[i] = v_{name}(x[i]); }}\n"
        for name in FUNCTIONS
    )
    stubs = (
        "int64_t advance(void) { return 0; }\nvoid look(void) {}\nint64_t sizes(int64_t k) { return k; }\n"
    )
    return build.library(text + stubs)


def aligned(values):
    raw = np.zeros(values.size + 8)
    at = (-raw.ctypes.data // 8) % 8
    out = raw[at : at + values.size]
    out[:] = values
    return out


@pytest.mark.parametrize("name", FUNCTIONS)
def test_vector_functions_are_accurate(vector_library, name):
    exact, low, high, relative, absolute = FUNCTIONS[name]
    draw = np.random.default_rng(1)
    x = np.concatenate(
        [
            draw.uniform(low, high, 4000),
            np.clip(draw.uniform(-2.0, 2.0, 4000), max(low, -2.0), 2.0),
            np.geomspace(max(low, 1e-12), min(high, 1e3), 4000),
        ]
    )
    x, y = aligned(np.maximum(x, low)), aligned(np.zeros(12000))
    function = vector_library[f"many_{name}"]
    function.argtypes = [ctypes.c_int64, ctypes.c_void_p, ctypes.c_void_p]
    function.restype = None
    function(x.size // 8, x.ctypes.data, y.ctypes.data)
    np.testing.assert_allclose(y, exact(x), rtol=2.0 * relative, atol=absolute)


def test_the_graph_keeps_values_while_it_shares_and_folds():
    graph = Graph()
    x, y, p = graph.state(0), graph.state(1), graph.input(0)
    one, two = graph.const(1.0), graph.const(2.0)
    assert graph.apply("mul", x, one) == x
    assert graph.apply("add", x, y) == graph.apply("add", y, x)
    assert graph.apply("sub", graph.apply("mul", two, x), graph.apply("mul", x, two)) == graph.const(0.0)
    roots = [
        graph.apply("div", x, graph.apply("add", y, p)),
        graph.apply("pow", x, graph.const(1.5)),
        graph.apply("pow", x, graph.const(-3.0)),
        graph.apply("mul", graph.const(3.0), graph.apply("mul", x, graph.const(0.25))),
        graph.apply("add", x, graph.apply("neg", y)),
    ]
    states, inputs = np.array([[2.0, 0.3], [0.7, 1.9]]), np.array([[0.1, 5.0]])
    a, b, q = states[0], states[1], inputs[0]
    expected = [a / (b + q), a**1.5, a**-3.0, 0.75 * a, a - b]
    np.testing.assert_allclose(graph.evaluate(roots, states, inputs), expected, rtol=1e-15)
    assert graph.states_of(roots[0]) == {0, 1}
    assert graph.inputs_of(roots[0]) == {0}


def test_a_table_and_its_slope():
    knots = np.array([0.0, 1.0, 3.0])
    table = Table(knots, np.array([[1.0, 2.0, 0.0, 1.0], [4.0, 5.0, 3.0, -1.0]]))
    x = np.array([-0.5, 0.25, 1.0, 2.5, 4.0])
    step = 1e-6
    slope = (table(x + step) - table(x - step)) / (2.0 * step)
    np.testing.assert_allclose(table.derivative()(x), slope, rtol=1e-7)


# ---- what is recognised -------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "model", "options", "exact", "nonlinear"),
    [
        ("Chen2020", "spm", {}, True, ()),
        ("Chen2020", "spme", {}, False, ("Porosity times concentration",)),
        ("Mohtat2020", "spme", {}, True, ()),
        ("Ecker2015", "spm", {}, False, ("X-averaged negative particle", "X-averaged positive particle")),
        ("Chen2020", "spm", {"SEI": "reaction limited"}, False, ("X-averaged negative particle",)),
    ],
)
def test_linear_and_nonlinear_parts_are_told_apart(name, model, options, exact, nonlinear):
    structure = analyse(discretise(parameter_set(name, model, options)))
    assert structure.exact is exact
    assert len(structure.banded) == len(nonlinear)
    for block, expected in zip(sorted(b.name for b in structure.banded), sorted(nonlinear), strict=True):
        assert block.startswith(expected)
    for block in structure.modal:
        # The modes are those of the operator, one of them conserves the lithium.
        assert (block.rate == 0.0).sum() == 1
        np.testing.assert_allclose(block.inverse @ block.vectors, np.eye(block.rate.size), atol=1e-9)


def test_the_second_time_nothing_is_built(monkeypatch):
    source = parameter_set("Chen2020", "spm")
    first = compiled(source)

    def never(_):
        raise AssertionError("built again")

    monkeypatch.setattr(module, "discretise", never)
    again = compiled(source)
    assert again.code == first.code
    np.testing.assert_array_equal(again.to_rows, first.to_rows)


# ---- what is refused ----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: compiled(parameter_set("Chen2021", "spm")), "no PyBaMM parameter set 'Chen2021'; expected"),
        (lambda: parameter_set("Chen2020", "dfn"), "no compiled cell model 'dfn'; expected one of spm, spme"),
        (
            lambda: compiled(parameter_set("Chen2020_composite", "spm", {"particle phases": ("2", "1")})),
            "share its current by an algebraic equation",
        ),
        (
            lambda: compiled(parameter_set("Chen2020", "spm", {"surface form": "algebraic"})),
            "2 algebraic states .* choose options without them",
        ),
        (
            lambda: compiled(parameter_set("Chen2020", "spm", {"SEI": "made up"})),
            "Chen2020: PyBaMM does not know this option",
        ),
        (
            lambda: compiled(parameter_set("Chen2020", "spm", inputs=["Electrode hight [m]"])),
            "no parameter 'Electrode hight \\[m\\]' to make an input of",
        ),
        (
            lambda: compiled(parameter_set("Chen2020", "spm", inputs=["Negative electrode OCP [V]"])),
            "is a function, not a number",
        ),
    ],
)  # fmt: skip
def test_what_cannot_be_compiled_says_what_to_change(make, message):
    with pytest.raises(ModelError, match=message):
        make()


def test_parameters_out_of_range_are_all_named():
    plain = parameter_set("Chen2020", "spm")

    def broken():
        values = plain.make_parameters()
        values["Negative electrode porosity"] = 1.3
        values["Positive particle radius [m]"] = -5e-6
        return values

    with pytest.raises(ModelError) as caught:
        compiled(Source("mine", "spm", plain.make_model, broken, {}))
    assert "mine: Negative electrode porosity is 1.3; expected more than 0 and less than 1" in str(
        caught.value
    )
    assert "mine: Positive particle radius [m] is -5e-06" in str(caught.value)


def test_broken_bpx_files(tmp_path):
    path = tmp_path / "cell.json"
    for text, message in (
        ('{"Header": {"BPX": 1,}}', r"cell\.json:1:\d+: not JSON"),
        ('{"Header": {}}', r"missing: Parameterisation"),
        ('{"Header": {"BPX": "1.0.0", "Model": "SPM"}, "Parameterisation": {"Cell": {}}}', r"cell\.json: "),
    ):
        path.write_text(text, encoding="utf-8")
        with pytest.raises(ModelError, match=message):
            compiled(bpx_file(path, "spm"))
    with pytest.raises(ModelError, match="cannot be read"):
        bpx_file(tmp_path / "none.json", "spm")


@needs_bpx
def test_a_wrong_number_in_a_bpx_file_is_named(tmp_path):
    content = json.loads((data_folder() / "bpx" / BPX).read_text(encoding="utf-8"))
    electrode = content["Parameterisation"]["Negative electrode"]
    for key, value, message in (
        ("Porosity", "a lot", r"Negative electrode / Porosity"),
        ("Porosity", 1.4, r"Negative electrode porosity is 1\.4; expected more than 0 and less than 1"),
    ):
        changed = json.loads(json.dumps(content))
        changed["Parameterisation"]["Negative electrode"] = {**electrode, key: value}
        path = tmp_path / "cell.json"
        path.write_text(json.dumps(changed), encoding="utf-8")
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            with pytest.raises(ModelError, match=message):
                compiled(bpx_file(path, "spm"))


# ---- cells --------------------------------------------------------------------------------------------


@pytest.fixture(scope="module", params=["spm", "spme"])
def model(request):
    return compiled(parameter_set("Chen2020", request.param))


def drive(cells, steps, seed=3, dt_s=30.0):
    draw = np.random.default_rng(seed)
    rates = draw.uniform(-4.0, 6.0, (steps, 64))
    for row in rates:
        cells.step(row[: cells.n], ROOM_K, dt_s)


def test_a_cell_does_not_feel_its_neighbours(model):
    """Bit for bit the same alone, in a full vector and in a partly filled one."""
    soc = np.linspace(0.3, 0.9, 13)
    company = CompiledCells(model, soc, ROOM_K)
    drive(company, 12)
    for k in (0, 7, 8, 12):
        alone = CompiledCells(model, soc[k], ROOM_K)
        draw = np.random.default_rng(3)
        for row in draw.uniform(-4.0, 6.0, (12, 64)):
            alone.step(row[k], ROOM_K, 30.0)
        assert alone.voltage_V[0] == company.voltage_V[k]
        rows, own = company.get_state()["rows"], alone.get_state()["rows"]
        np.testing.assert_array_equal(own[0, :, 0], rows[k // 8, :, k % 8])


@pytest.mark.skipif(
    build.host_cpu() != "x86_64_v4", reason="this processor has no AVX-512 to compare with AVX2"
)
def test_wide_and_narrow_vectors_give_the_same_bits(monkeypatch):
    found = []
    for cpu in ("x86_64_v4", "x86_64_v3"):
        monkeypatch.setattr(build, "host_cpu", lambda cpu=cpu: cpu)
        cells = CompiledCells(compiled(parameter_set("Chen2020", "spm")), np.linspace(0.3, 0.9, 16), ROOM_K)
        drive(cells, 10)
        found.append(cells.get_state()["rows"])
    np.testing.assert_array_equal(*found)


def test_saved_and_resumed_bit_for_bit(model):
    one = CompiledCells(model, np.linspace(0.3, 0.9, 11), ROOM_K)
    drive(one, 6)
    two = CompiledCells(model, np.full(11, 0.5), ROOM_K)
    two.set_state(one.get_state())
    for cells in (one, two):
        drive(cells, 6, seed=4, dt_s=7.0)
    np.testing.assert_array_equal(one.voltage_V, two.voltage_V)
    for name, value in one.get_state().items():
        np.testing.assert_array_equal(value, two.get_state()[name], err_msg=name)
    with pytest.raises(ValueError, match=r"state of 3 cells of Chen2020.*rows has shape"):
        CompiledCells(model, np.full(3, 0.5), ROOM_K).set_state(one.get_state() | {"clock_s": np.zeros(1)})


def test_charge_is_counted_by_the_lithium(model):
    cells = CompiledCells(model, [0.7, 0.5], ROOM_K)
    for _ in range(20):
        cells.step([3.0, -2.0], ROOM_K, 45.0)
    moved_C = np.array([3.0, -2.0]) * 900.0
    np.testing.assert_allclose(np.array([0.7, 0.5]) - cells.soc, moved_C / cells.capacity_C, rtol=1e-9)


def test_bad_input_names_the_cell(model):
    cells = CompiledCells(model, np.full(10, 0.5), ROOM_K)
    amps = np.ones(10)
    amps[8] = np.nan
    with pytest.raises(ValueError, match=r"Current function \[A\] of cell 8 is nan"):
        cells.step(amps, ROOM_K, 1.0)
    with pytest.raises(ValueError, match=r"soc of cell 1 is 1\.2; expected 0 to 1"):
        CompiledCells(model, [0.5, 1.2], ROOM_K)
    with pytest.raises(ValueError, match="expected a positive number of seconds"):
        cells.step(1.0, ROOM_K, 0.0)
    with pytest.raises(ValueError, match="compiled without the input 'Electrode width"):
        cells.set_input("Electrode width [m]", 1.0)
    assert np.isfinite(cells.voltage_V).all()


def test_an_empty_cell_stops_with_its_name_time_value_and_window(model):
    cells = CompiledCells(model, [0.9, 0.9, 0.05], ROOM_K)
    cells.step(1.0, ROOM_K, 60.0)
    before = cells.get_state()
    with pytest.raises(
        CellStepError, match=r"cell 2: .*surface stoichiometry would be .* at 960 s, outside 0 to 1"
    ):
        cells.step(10.0, ROOM_K, 900.0)
    for name in ("rows", "clock_s"):
        np.testing.assert_array_equal(cells.get_state()[name], before[name])
    assert np.isfinite(cells.voltage_V).all()


def test_a_step_is_cut_at_the_voltage_limit(model):
    cells = CompiledCells(model, [0.9, 0.06], ROOM_K)
    taken_s, event = cells.step_to_limit(5.0, ROOM_K, 600.0)
    assert 0.0 < taken_s < 600.0
    assert event.cell == 1
    assert event.voltage_V == pytest.approx(2.5, abs=1e-3)
    assert str(event).startswith(f"cell 1 at {taken_s:.3f} s: 2.5")
    assert cells.time_s == taken_s
    # The other way there is room again; nothing stops the cell.
    assert cells.step_to_limit(-2.0, ROOM_K, 10.0) == (10.0, None)


def test_every_cell_of_a_bank_may_have_parameters_of_its_own():
    """Half the electrode area is half the capacity, and carries half the current of a parallel group."""
    area = "Electrode height [m]"
    model = compiled(parameter_set("Chen2020", "spm", inputs=[area]))
    bank = CompiledBank.from_model(model, Layout.uniform(1, 1, 2, 1), 0.6, {area: [0.065, 0.0325]})
    assert bank.capacity_Ah[0] == pytest.approx(2.0 * bank.capacity_Ah[1], rel=1e-12)
    np.testing.assert_allclose(bank.soc, 0.6, rtol=1e-12)
    for amps in (6.0, -3.0):
        bank.step(np.array([amps]), np.full(2, ROOM_K), 20.0)
        np.testing.assert_allclose(bank.cell_current_A, [amps * 2.0 / 3.0, amps / 3.0], rtol=1e-6)
    balances = bank.balances()
    assert abs(balances["charge_residual_C"][0]) < 1e-9 * balances["charge_throughput_C"][0]


@needs_bpx
def test_a_bank_of_a_bpx_cell():
    """A cell without a catalogue entry carries the whole port: sharing, ledgers with entropy, window."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        model = compiled(bpx_file(data_folder() / "bpx" / BPX, "spme"))
    design = design_of(model)
    assert design.capacity_Ah == 12.5
    assert design.has_entropy
    bank = CompiledBank.from_model(model, Layout.uniform(1, 2, 2, 2), [0.5, 0.52, 0.5, 0.5])
    for amps in (20.0, -10.0, 0.0):
        bank.step(np.array([amps]), np.full(4, 310.0), 60.0)
    balances = bank.balances()
    assert abs(balances["energy_residual_J"][0]) < 1e-9 * balances["energy_throughput_J"][0]
    assert abs(balances["charge_residual_C"][0]) < 1e-9 * balances["charge_throughput_C"][0]
    assert balances["energy_entropic_J"][0] != 0.0
    assert bank.window_report() == []
