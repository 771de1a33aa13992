"""What a solver says is followed: for each field a twin that has another outcome in the real Caffe.

The real Caffe runs the solver as it was written; what `prepare` makes of it must come to the same,
in the real Caffe and in the engine torch.
"""

import json
from collections import defaultdict
from collections.abc import Callable, Iterable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from pycaffe_prune.engines.caffe.caffe_worker import loop
from pycaffe_prune.engines.job import TrainRequest
from pycaffe_prune.engines.prepare import prepare
from pycaffe_prune.engines.run_folder import RunFolder
from pycaffe_prune.engines.torch.solver import Solver
from pycaffe_prune.errors import FormatError, PruneError
from pycaffe_prune.formats.caffemodel import write_caffemodel
from pycaffe_prune.formats.field_table import Status, field_table
from pycaffe_prune.formats.named_model import named_model
from pycaffe_prune.formats.prototxt import read_net, read_solver
from tests.parity.solver_twins import (
    BASE,
    NET,
    NETS,
    PASSES,
    REFUSED_TWINS,
    SCHEDULES,
    TESTED,
    TWINS,
)

Outcome = dict[str, NDArray[np.float32]]


IN_V1 = f"train_net_param {{ {NETS['plain_v1']} }} {BASE}"
FED = f"net_param {{ {NETS['fed']} }} {BASE}"
LAW = (
    "SolverParameter",
    "NetParameter",
    "NetState",
    "NetStateRule",
    "ParamSpec",
    "LayerParameter",
)
CASES_OF_LAYERS = {"name", "type", "bottom", "top", "blobs"}
"""Fields of LayerParameter that say what a layer is; those of its type: test_field_cases.py."""
DRAWN = {"random_seed"}
"""What only Caffe draws so: the torch engine's twins differ, and each from Caffe's."""


def honoured(message: str) -> list[str]:
    return [
        name if message == "SolverParameter" else f"{message}.{name}"
        for row in field_table().messages[message].rows
        for name in row.fields
        if Status.HONOURED in (row.uses["caffe"].status, row.uses["torch"].status)
        and not (message == "LayerParameter" and is_of_layers(name))
    ]


def is_of_layers(name: str) -> bool:
    return name in CASES_OF_LAYERS or name.endswith("_param")


@pytest.mark.parametrize("message", LAW)
def test_each_field_that_the_table_says_is_honoured_has_twins(message: str) -> None:
    missing = {*honoured(message)} - TWINS.keys() - REFUSED_TWINS.keys() - SCHEDULES.keys()
    assert not missing, "give each a pair of solvers in tests/parity/solver_twins.py"


def test_twins_are_of_fields_that_are_honoured() -> None:
    known = {field for message in LAW for field in honoured(message)}
    assert {*TWINS, *REFUSED_TWINS, *SCHEDULES} <= known


@pytest.fixture
def make(tmp_path: Path) -> Callable[[str, str], Path]:
    """Write a solver of its own name beside all nets, and weights."""
    for name, text in (NETS | PASSES).items():
        (tmp_path / f"{name}.prototxt").write_text(text)
    ip = {("ip", 0): np.eye(3, dtype=np.float32), ("ip", 1): np.ones(3, np.float32)}
    scores = np.arange(12, dtype=np.float32).reshape(2, 6) % 5 / 4
    ends = {("three", 0): scores[:, :3], ("six", 0): scores}
    biases = {(name, 1): np.zeros(2, np.float32) for name, _ in ends}
    weights = named_model(ip | ends | biases)
    write_caffemodel(tmp_path / "trained.caffemodel", weights)

    def write(name: str, text: str) -> Path:
        length = "" if "max_iter" in text else "max_iter: 4"
        seed = "" if "random_seed" in text else "random_seed: 7"
        path = tmp_path / f"{name}.prototxt"
        path.write_text(f"{text} {length} {seed} solver_mode: CPU\n")
        return path

    return write


def prepared(solver: Path, **wishes: object) -> RunFolder:
    folder = RunFolder(solver.with_suffix(""))
    folder.path.mkdir()
    prepare(TrainRequest(solver=solver, **wishes), folder)
    return folder


def job_of(folder: RunFolder) -> dict[str, Any]:
    """What engines read beside net and solver."""
    job: dict[str, Any] = json.loads(folder.job.read_bytes())
    return job


def torch_solver(folder: RunFolder) -> Solver:
    solver = Solver(read_solver(folder.solver), read_net(folder.net))
    for path in job_of(folder)["weights"]:
        solver.net.copy_from(Path(path))
    return solver


def outcome_in_torch(folder: RunFolder) -> Outcome:
    solver = torch_solver(folder)
    solver.step(solver.param.max_iter)
    found = {}
    for place, test_net in enumerate(solver.test_nets):
        test_net.share_with(solver.net)
        test_net.forward()
        found[f"test:{place}"] = test_net.blobs["loss"].data.copy()
    blobs = [blob for blobs in solver.net.params.values() for blob in blobs]
    found |= {f"data:{index}": blob.data.copy() for index, blob in enumerate(blobs)}
    solver.close()
    return found


def are_alike(one: Outcome, other: Outcome) -> bool:
    return one.keys() == other.keys() and all(
        one[key].shape == other[key].shape
        and np.allclose(one[key], other[key], rtol=1e-4, atol=1e-6)
        for key in one
    )


@pytest.mark.real_caffe
@pytest.mark.parametrize("field", TWINS)
def test_what_a_field_changes_in_caffe_it_changes_here(field: str, make, caffe_solver) -> None:
    wanted, in_torch = [], []
    for name, text in zip(("one", "other"), TWINS[field], strict=True):
        solver = make(name, text)
        steps = read_solver(solver).max_iter
        wanted.append(caffe_solver(solver, "outcome", steps=steps))
        folder = prepared(solver)
        weights = job_of(folder)["weights"]
        ours = caffe_solver(folder.solver, "outcome", steps=steps, weights=weights)
        assert ours.keys() == wanted[-1].keys()
        assert all(np.array_equal(ours[key], wanted[-1][key]) for key in ours), "bit for bit"
        in_torch.append(outcome_in_torch(folder))
        assert field in DRAWN or are_alike(in_torch[-1], wanted[-1])
    assert not are_alike(*wanted), "the twins differ in nothing that Caffe looks at"
    assert not are_alike(*in_torch)


@pytest.mark.real_caffe
@pytest.mark.parametrize("name", PASSES)
def test_gradients_of_several_passes_are_those_of_caffe(name: str, make, caffe_solver) -> None:
    solver = make(
        "solver", f'net: "{name}.prototxt" weights: "trained.caffemodel" iter_size: 2 {BASE}'
    )
    wanted = caffe_solver(solver, "outcome", steps=4)
    assert are_alike(outcome_in_torch(prepared(solver)), wanted)


@pytest.mark.real_caffe
def test_a_test_by_the_batch_s_statistics_moves_those_that_are_kept(make, caffe_solver) -> None:
    told = "test_initialization: false " + TESTED
    solver = make("by_batch_solver", 'net: "by_batch.prototxt" ' + told)
    wanted = caffe_solver(solver, "outcome", steps=4)
    assert are_alike(outcome_in_torch(prepared(solver)), wanted)
    untested = make("untested", 'net: "by_batch.prototxt" ' + BASE)
    assert not np.allclose(wanted["data:2"], caffe_solver(untested, "outcome", steps=4)["data:2"])


@pytest.mark.real_caffe
@pytest.mark.parametrize("field", REFUSED_TWINS)
def test_what_caffe_aborts_on_for_a_field_is_refused_here(field: str, make, caffe_solver) -> None:
    taken, refused = (
        make(name, text) for name, text in zip(("one", "other"), REFUSED_TWINS[field], strict=True)
    )
    wanted = caffe_solver(taken, "outcome", steps=4)
    assert are_alike(outcome_in_torch(prepared(taken)), wanted)
    with pytest.raises(AssertionError, match="Check failed"):
        caffe_solver(refused, "outcome", steps=4)
    with pytest.raises(PruneError, match=field.partition(".")[2]):
        torch_solver(prepared(refused))


@pytest.mark.real_caffe
@pytest.mark.parametrize("field", SCHEDULES)
def test_what_is_done_is_done_when_caffe_does_it(field: str, make, caffe_solver) -> None:
    wanted = []
    for name, text in zip(("one", "other"), SCHEDULES[field], strict=True):
        solver = make(name, text)
        found = caffe_solver(solver, "schedule")
        wanted.append([before_end(found[kind], solver) for kind in ("tests", "snapshots")])
        folder = prepared(solver)
        here = schedule_here(folder)
        assert [before_end(here[kind], solver) for kind in ("test", "snapshot")] == wanted[-1]
        for state in solver.parent.glob("*_iter_*"):
            state.unlink()
    assert wanted[0] != wanted[1]


def before_end(iterations: Iterable[int], solver: Path) -> list[int]:
    """Those but for the last, at which a run here is always tested and kept."""
    return [int(at) for at in iterations if at < read_solver(solver).max_iter]


def schedule_here(folder: RunFolder) -> dict[str, list[int]]:
    """The iterations of what happens in a run, by kind."""
    solver, happened = torch_solver(folder), defaultdict(list)
    run = SimpleNamespace(step=solver.step, net=solver.net, test_nets=solver.test_nets)
    testers = [SimpleNamespace(run=dict, right_answers=None) for _ in solver.test_nets]
    job = job_of(folder) | {"tests": [{"name": str(place)} for place in range(len(testers))]}

    def emit(*, event: str, iteration: int, **_: object) -> None:
        happened[event].append(iteration)

    loop.run(run, testers, job, 0, emit, lambda _: None)
    solver.close()
    return happened


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        (BASE, "names no net to train"),
        (NET + 'train_net: "plain.prototxt" ' + BASE, "train_net and net"),
        ('train_net: "plain.prototxt" ' + TESTED, "by train_net alone.*name a test_net"),
        (
            'train_net: "plain.prototxt" test_net: "plain.prototxt" ' + TESTED + "test_iter: 1",
            "1 test nets and 2 test_iter",
        ),
        (NET + "test_iter: 1 " + BASE, "test_iter and test_interval 0.*Caffe ends"),
        (NET + TESTED + "test_state {} test_state {}", "2 test_state for 1 test nets"),
        (NET + 'test_net: "plain.prototxt" ' + BASE, "1 test nets and 0 test_iter"),
        (NET + BASE + "train_state { phase: TEST }", "train_state asks for the phase TEST"),
        (NET + TESTED + "test_state { phase: TRAIN }", "test_state asks for the phase TRAIN"),
        ('net: "no.prototxt" ' + BASE, "neither here nor beside it"),
        (NET + BASE + 'type: "SGD" solver_type: ADAM', "both 'solver_type'"),
        (NET + BASE + "iter_size: 0", "iter_size is 0"),
        (NET + BASE + "average_loss: 0", "average_loss is 0"),
        ("net_param {} " + BASE, "its net_param holds no layer"),
        (IN_V1, "its train_net_param has layers, an old form .* name it by train_net"),
        (FED, "its net_param has input, an old form .* name it by net"),
    ],
)
def test_what_caffe_or_a_run_cannot_do_is_one_sentence(text: str, sentence: str, make) -> None:
    with pytest.raises(FormatError, match=sentence):
        prepared(make("solver", text))


@pytest.mark.real_caffe
def test_caffe_passes_over_old_forms_of_a_net_inside_a_solver(make, caffe_solver) -> None:
    with pytest.raises(AssertionError, match=r"end < layers_.size\(\) \(-1 vs. 0\)"):
        caffe_solver(make("v1", IN_V1), "outcome", steps=1)
    with pytest.raises(AssertionError, match="Unknown bottom blob 'data'"):
        caffe_solver(make("fed", FED), "outcome", steps=1)


def test_a_net_of_one_s_own_takes_the_place_of_all_that_the_solver_names(
    make, tmp_path: Path
) -> None:
    solver = make("solver", 'train_net: "deep.prototxt" test_net: "deep.prototxt" ' + TESTED)
    folder = prepared(solver, net=tmp_path / "bent.prototxt")
    assert read_net(folder.net) == read_net(tmp_path / "bent.prototxt")


def test_a_net_without_states_stays_as_it_is_in_its_file(make, tmp_path: Path) -> None:
    folder = prepared(make("solver", 'net: "in_tests.prototxt" ' + TESTED))
    assert read_net(folder.net) == read_net(tmp_path / "in_tests.prototxt")
