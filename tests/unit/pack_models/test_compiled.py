"""The compiled kernels: the same bits with and without this processor's vector instructions; clear errors."""

import numpy as np
import pytest

from pack_models import compiled
from pack_models.catalogue import pack
from pack_models.fleet import FleetEngine, MeanFleet


def played(kind, design, **more):
    fleet = kind(pack(design), 3, **more)
    draw = np.random.default_rng(1)
    request_W = fleet.converter.rated_W * draw.uniform(-1.0, 1.0, (45, fleet.n_converters))
    rows = fleet.run(request_W, np.full((45, fleet.n_containers), 300.0), 60.0)
    return [*rows.values(), *fleet.cells.get_state().values()]


@pytest.mark.parametrize(
    ("kind", "design"),
    [(FleetEngine, "lfp280_1p240s"), (FleetEngine, "bus_14s2p"), (MeanFleet, "lfp280_1p240s")],
)
def test_vector_instructions_change_no_bit(monkeypatch, kind, design):
    native = played(kind, design)
    plain = (*(flag for flag in compiled.FLAGS if flag != "-march=native"), "-mcpu=baseline")
    monkeypatch.setattr(compiled, "FLAGS", plain)
    compiled.load.cache_clear()
    try:
        baseline = played(kind, design)
    finally:
        compiled.load.cache_clear()
    for one, two in zip(native, baseline, strict=True):
        np.testing.assert_array_equal(one, two)


@pytest.fixture
def own_cache(tmp_path, monkeypatch):
    """A cache of its own for what is built, the compiler's usual one for what it needs itself."""
    for name in ("ZIG_GLOBAL_CACHE_DIR", "ZIG_LOCAL_CACHE_DIR"):
        monkeypatch.setenv(name, str(compiled.cache_folder().parent / "zig"))
    monkeypatch.setenv("TWIN_CACHE", str(tmp_path / "cache"))


@pytest.mark.usefixtures("own_cache")
def test_a_source_that_does_not_compile_says_so(tmp_path):
    source = tmp_path / "broken.c"
    source.write_text("int f(void) { return x; }\n", encoding="utf-8")
    with pytest.raises(compiled.CompileError, match=r"broken\.c does not compile .*\n.*undeclared"):
        compiled.build(source)
    assert not list((tmp_path / "cache" / "kernels").glob("*.so"))


@pytest.mark.usefixtures("own_cache")
def test_an_included_file_is_part_of_the_content(tmp_path):
    (tmp_path / "part.c").write_text("double part(void) { return 1.0; }\n", encoding="utf-8")
    source = tmp_path / "whole.c"
    source.write_text('#include "part.c"\ndouble whole(void) { return part(); }\n', encoding="utf-8")
    first = compiled.build(source)
    assert compiled.build(source) == first
    (tmp_path / "part.c").write_text("double part(void) { return 2.0; }\n", encoding="utf-8")
    assert compiled.build(source) != first
