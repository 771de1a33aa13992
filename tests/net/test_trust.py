"""The gate: what is listed passes, and nothing else, wherever in a net or solver it stands."""

import subprocess
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pycaffe_prune.engines.job import TrainRequest
from pycaffe_prune.engines.solver_nets import solver_nets
from pycaffe_prune.errors import FormatError
from pycaffe_prune.formats.caffe_pb2 import LayerParameter, NetParameter
from pycaffe_prune.formats.prototxt import read_solver
from pycaffe_prune.net.fork_shapes import is_fork_type
from pycaffe_prune.net.trust import HARMLESS, refuse_untrusted

HOSTILE = Path(__file__).parents[1] / "cases" / "hostile"


# Without skimage, which takes a second to import.
LIST = (
    "import sys, types; sys.modules.update({name: types.ModuleType(name) for name in "
    "('skimage', 'skimage.io', 'skimage.transform')}); sys.modules['skimage.transform'].resize = 0;"
    "import caffe; print(*caffe.layer_type_list())"
)


@pytest.mark.real_caffe
def test_of_caffe_s_own_types_all_may_pass_but_the_two_that_run_and_write(
    caffe_python: Path,
) -> None:
    listed = subprocess.run(
        [caffe_python, "-c", LIST],
        capture_output=True,
        text=True,
        check=True,
    )
    stock = {name for name in HARMLESS if not is_fork_type(name)}
    assert set(listed.stdout.split()) - {"HDF5Output", "Python"} == stock


@pytest.mark.parametrize(
    ("layer", "told"),
    [
        ({"type": "Python", "python_param": {"module": "os"}}, "Python layer .* the module 'os'"),
        (
            {"type": "HDF5Output", "hdf5_output_param": {"file_name": "/x/y.h5"}},
            "HDF5Output layer that writes the file '/x/y.h5'",
        ),
        ({"type": "FrameGrabber"}, "type 'FrameGrabber', which stock Caffe does not have"),
        ({"type": "python"}, "type 'python', which stock Caffe does not have"),
        ({}, "type '', which stock Caffe does not have"),
    ],
)
def test_a_refusal_names_file_layer_what_it_does_and_the_remedy(layer: dict, told: str) -> None:
    net = NetParameter(layer=[LayerParameter(name="ip", type="InnerProduct")])
    refuse_untrusted(net, Path("a.prototxt"))
    net.layer.add(name="evil", **layer)
    with pytest.raises(FormatError, match=rf"^a\.prototxt: layer 'evil' is .*{told}.*; --trust"):
        refuse_untrusted(net, Path("a.prototxt"))


def asked(solver: Path, **wishes) -> None:
    request = TrainRequest(solver=solver, **wishes)
    solver_nets(request, read_solver(solver))


@pytest.mark.parametrize("solver", [*HOSTILE.glob("*/solver*.prototxt"), "netp", "evil_net"])
def test_the_hostile_solvers_are_refused(solver: Path | str) -> None:
    folder, wishes = HOSTILE / "python-layer-bypass", {}
    if isinstance(solver, str):
        solver, wishes = folder / "s1.prototxt", {"net": folder / f"{solver}.prototxt"}
    with pytest.raises(FormatError, match=r"(Python|HDF5Output) layer that .*; --trust"):
        asked(solver, **wishes)


EVIL = {
    "Python": 'layer { name: "e" type: "Python" %s python_param { module: "m" layer: "L" } }',
    "HDF5Output": 'layer { name: "e" type: "HDF5Output" bottom: "x" bottom: "x" %s'
    ' hdf5_output_param { file_name: "/tmp/x" } }',
    "V1": 'layers { name: "e" type: HDF5_OUTPUT bottom: "x" bottom: "x" %s'
    ' hdf5_output_param { file_name: "/tmp/x" } }',
    "V0": 'layers { layer { name: "e" type: "hdf5_output" } bottom: "x" bottom: "x" %s }',
    "unknown": 'layer { name: "e" type: "Cam" %s }',
}
PLAIN = {
    "layer": 'layer { name: "x%d" type: "DummyData" top: "x" dummy_data_param '
    "{ shape { dim: 1 } } }",
    "V1": 'layers { name: "x%d" type: DUMMY_DATA top: "x" }',
    "V0": 'layers { layer { name: "x%d" type: "dropout" } bottom: "x" top: "x" }',
}
RULES = ("", "include { phase: TEST }", 'include { stage: "never" }', "exclude { min_level: -9 }")
FIELDS = ("net", "train_net", "test_net", "net_param", "train_net_param", "test_net_param")


@st.composite
def hidden(draw: st.DrawFn) -> tuple[str, str, int]:
    """A net with one evil layer somewhere; the field of a solver that it is in, and how often."""
    kind = draw(st.sampled_from(sorted(EVIL)))
    plain = PLAIN.get(kind, PLAIN["layer"])
    layers = [plain % number for number in range(draw(st.integers(0, 2)))]
    rule = "" if kind == "V0" else draw(st.sampled_from(RULES))
    layers.insert(draw(st.integers(0, len(layers))), EVIL[kind] % rule)
    layers.insert(0, 'input: "x" input_dim: [1, 1, 1, 1]')
    return "\n".join(layers), draw(st.sampled_from(FIELDS)), draw(st.integers(0, 2))


@settings(max_examples=60)
@given(found=hidden())
def test_nothing_of_another_type_passes_wherever_it_is_hidden(
    found: tuple[str, str, int], tmp_path_factory: pytest.TempPathFactory
) -> None:
    evil, field, before = found
    folder = tmp_path_factory.getbasetemp() / "hidden"
    folder.mkdir(exist_ok=True)
    good = PLAIN["layer"] % 0
    (folder / "good.prototxt").write_text(good)
    (folder / "evil.prototxt").write_text(evil)
    is_file = not field.endswith("_param")
    told = f'{field}: "evil.prototxt"' if is_file else f"{field} {{ {evil} }}"
    other = f'{field}: "good.prototxt"' if is_file else f"{field} {{ {good} }}"
    tests = before + 1 if field.startswith("test_") else 1
    solver = folder / "solver.prototxt"
    solver.write_text(
        "\n".join(
            [
                *([other] * before if field.startswith("test_") else ()),
                told,
                *(['net: "good.prototxt"'] if field.startswith("test_") else ()),
                *(["test_net: 'good.prototxt'"] if field.startswith("train_") else ()),
                *["test_iter: 1"] * tests,
            ]
        )
    )
    with pytest.raises(FormatError, match="; --trust"):
        asked(solver)
