"""The stages of experiments: what their keys hang on, and which are run."""

import shutil
from dataclasses import replace
from pathlib import Path

import lmdb
import pytest

from data_prep.lmdb_writer import lmdb_content_checksum
from pycaffe_prune.errors import FormatError, SurgeryError
from pycaffe_prune.experiments.plan import Plan, make_plan, solver_path
from pycaffe_prune.experiments.pretrained import Pretrained
from pycaffe_prune.experiments.result import (
    Execution,
    LayerRate,
    Point,
    Round,
    Score,
    Setting,
)
from pycaffe_prune.experiments.spec import read_experiment
from pycaffe_prune.formats.caffe_pb2 import Datum
from tests.experiments.conftest import plan_of


def test_keys_change_with_every_setting_and_with_nothing_else(toml, tmp_path, data_set):
    def keys(**changed) -> list[str]:
        plan = plan_of(toml, changed.get("out", tmp_path), changed.get("data", tmp_path), data_set)
        return [stage.key for stage in plan.stages]

    before = keys()
    assert len(set(before)) == len(before) == 2 + 2 * 2 + 2 + 2 * 2
    assert keys(out=tmp_path / "b", data=tmp_path / "c") == before
    text = toml.read_text()
    for old, new, untouched in [
        ("iterations = 150", "iterations = 160", set(before[8:])),
        ("seeds = [1, 2]\niterations = 150", "seeds = [1, 3]\niterations = 150", {before[0]}),
        (
            "rounds = 2\niterations = 60",
            "rounds = 2\niterations = 61",
            set(before[:2] + before[6:]),
        ),
        ("alphas = [0.8", 'sigma = "all"\nalphas = [0.8', set(before[:2] + before[6:])),
        ("ip2 = 0.5", "ip2 = 0.25", set(before[:6])),
    ]:
        toml.write_text(text.replace(old, new, 1))
        assert set(keys()) & set(before) >= untouched
        assert set(keys()) != set(before)
    toml.write_text(text)
    solver = toml.parent / "solver.prototxt"
    solver.write_text(solver.read_text() + "# another solver")
    assert not set(keys()) & set(before)


def test_keys_hang_on_what_is_in_the_data(toml, tmp_path, data_set, digits):
    def keys(data: Path) -> set[str]:
        told = {
            f"{name}_sha256": lmdb_content_checksum(data / f"mnist_{name}_lmdb")
            for name in ("train", "test")
        }
        true = {
            stage.key
            for stage in plan_of(toml, tmp_path, data, data_set.model_copy(update=told)).stages
        }
        stale = {stage.key for stage in plan_of(toml, tmp_path, data, data_set).stages}
        assert not true & stale  # what the net reads counts, whatever is told of it
        return true | stale

    before = keys(digits)
    shutil.copytree(digits, tmp_path / "copy")
    assert keys(tmp_path / "copy") == before
    folder = tmp_path / "copy" / "mnist_test_lmdb"
    with lmdb.open(str(folder)) as environment, environment.begin(write=True) as transaction:
        key, value = next(iter(transaction.cursor()))
        datum = Datum.FromString(value)
        datum.label = (datum.label + 1) % 10
        transaction.put(key, datum.SerializeToString())
    assert not keys(tmp_path / "copy") & before


def test_keys_hang_on_the_judged_layer_where_there_is_more_than_one_way(toml, tmp_path, data_set):
    def keys(accuracy: str | None = None) -> set[str]:
        spec = read_experiment(toml).model_copy(update={"accuracy": accuracy})
        plan = make_plan(spec, solver_path(spec, toml), tmp_path, tmp_path, data_set, "caffe")
        return {stage.key for stage in plan.stages}

    before = keys()  # one Accuracy: what was done before it had a name counts
    assert keys("accuracy") == before
    assert not keys("loss") & before
    with pytest.raises(FormatError, match="'top-5' to judge by; there are: accuracy, loss"):
        keys("top-5")
    net = toml.parent / "net.prototxt"
    net.write_text(
        net.read_text()
        + 'layer { name: "top-5" type: "Accuracy" bottom: "ip3" bottom: "label" top: "top-5" '
        "accuracy_param { top_k: 5 } include { phase: TEST } }"
    )
    several = [keys(), keys("accuracy"), keys("top-5"), keys("loss")]
    assert several[0] == several[1]
    assert len(set.union(*several)) == 3 * len(before)
    toml.write_text('accuracy = "top-5"\n' + toml.read_text())
    assert read_experiment(toml).accuracy == "top-5"
    net.write_text(net.read_text().replace('"Accuracy"', '"Silence"').replace("WithLoss", ""))
    with pytest.raises(FormatError, match="has no Accuracy or SoftmaxWithLoss layer with labels"):
        keys()


def _labels(plan: Plan, known: set[str]) -> set[str]:
    """Kinds of the stages whose keys are new."""
    return {stage.kind for stage in plan.stages if stage.key not in known}


def test_keys_hang_on_retraining_and_weights_where_these_matter(toml, tmp_path, data_set):
    spec, solver = read_experiment(toml), toml.parent / "solver.prototxt"
    before = {stage.key for stage in plan_of(toml, tmp_path, tmp_path, data_set).stages}

    def planned(**changed) -> Plan:
        return make_plan(spec, solver, tmp_path, tmp_path, data_set, "caffe", **changed)

    other = toml.parent / "other.prototxt"
    other.write_text(solver.read_text().replace("base_lr: 0.02", "base_lr: 0.01"))
    again = planned(retraining_solver=other)
    assert _labels(again, before) == {"connections", "units"}
    assert _labels(planned(retraining_solver=solver), before) == set()
    begun = planned(pretrained=Pretrained(tmp_path / "w", "5" * 64))
    assert _labels(begun, before) == {"baseline", "connections", "units"}
    elsewhere = planned(pretrained=Pretrained(tmp_path / "x", "5" * 64))
    assert _labels(elsewhere, {stage.key for stage in begun.stages}) == set()


def test_keys_hang_on_units_and_on_the_mean_image(toml, tmp_path, data_set):
    def keys() -> set[str]:
        return {stage.key for stage in plan_of(toml, tmp_path, tmp_path, data_set).stages}

    before, text = keys(), toml.read_text()
    toml.write_text(text + "[net]\nunits = { ip1 = 21 }\n")
    assert not keys() & before
    toml.write_text(text + "[net]\nunits = { ip9 = 21 }\n")
    with pytest.raises(SurgeryError, match="layer 'ip9', whose width"):
        keys()
    toml.write_text(text)
    net = toml.parent / "net.prototxt"
    net.write_text(net.read_text().replace("scale:", 'mean_file: "m.binaryproto" scale:', 1))
    (tmp_path / "m.binaryproto").write_bytes(b"one")
    one = keys()
    (tmp_path / "m.binaryproto").write_bytes(b"two")
    assert not keys() & one


def test_without_small_models_the_other_stages_are_the_same(toml, tmp_path, data_set):
    before = {stage.key for stage in plan_of(toml, tmp_path, tmp_path, data_set).stages}
    text = toml.read_text()
    toml.write_text(text[: text.rindex("[[methods]]")])
    plan = plan_of(toml, tmp_path, tmp_path, data_set)
    assert plan.chains("small") == ()
    assert {stage.key for stage in plan.stages} < before
    toml.write_text(
        text.replace('layer = "ip1"', 'layers = ["ip1", "ip2"]').replace("fixed = ", "# ")
    )
    ratios = [
        chain.stages[0].ratios
        for chain in plan_of(toml, tmp_path, tmp_path, data_set).chains("units")
    ]
    assert ratios == [(("ip1", 0.5), ("ip2", 0.5)), (("ip1", 0.9), ("ip2", 0.9))]


def test_what_an_earlier_result_has_is_run_all_the_same_where_another_stage_needs_it(
    toml, tmp_path, data_set
):
    table = '[[methods]]\nkind = "small-dense"\nof = "units"\nseeds = [1]\niterations = 1\n'
    toml.write_text(toml.read_text() + table)
    spec = read_experiment(toml)
    solver = solver_path(spec, toml)
    plan = make_plan(spec, solver, tmp_path, tmp_path, data_set, "torch")
    score = Score(accuracy=1, correct=1, images=1, loss=0, finite=True)
    layers = tuple(
        LayerRate(layer=name, weights=1, kept=1, reduction=0)
        for name in plan.baselines[0].context.layers
    )
    part = {"layers": layers, "reduction": 0, "before": score, "after": score}

    def known(*methods: str) -> Plan:
        points = {
            chain.stages[-1].key: Point(
                method=method,
                setting=Setting(name="s"),
                seed=1,
                rounds=tuple(
                    Round(round=number, iterations=1, seconds=0, **part)
                    for number, _ in enumerate(chain.stages, 1)
                ),
            )
            for method in methods
            for chain in plan.chains(method)
        }
        return replace(plan, known=points)

    whole = [stage.key for stage in plan.stages]
    units = {stage.key for chain in plan.chains("units") for stage in chain.stages}
    dense = {stage.key for chain in plan.chains("small-dense") for stage in chain.stages}
    assert {stage.key for stage in known("units").stages} == set(whole)
    left = [stage.key for stage in known("units", "small-dense").stages]
    assert left == [key for key in whole if key not in units | dense]
    for stages in (plan.stages, known("units").stages, known("small").stages):
        place = {stage.key: at for at, stage in enumerate(stages)}
        for stage in stages:
            assert all(place[before.key] < place[stage.key] for before in stage.inputs)


def test_of_what_the_engine_is_told_only_tf32_makes_other_stages(toml, tmp_path, data_set):
    spec = read_experiment(toml)

    def stages(engine: str, **told) -> list:
        execution = Execution(**told)
        solver = solver_path(spec, toml)
        return make_plan(spec, solver, tmp_path, tmp_path, data_set, engine, execution).stages

    def keys(*arguments, **told) -> set[str]:
        return {stage.key for stage in stages(*arguments, **told)}

    assert keys("torch", device="cuda", threads=2, pack=4) == keys("torch")
    assert not keys("torch", device="cuda", tf32=True) & keys("torch")
    assert not keys("torch") & keys("caffe")
    assert {stage.context.device for stage in stages("torch", device="cuda:1")} == {"cuda:1"}
    assert {stage.context.threads for stage in stages("torch", threads=3)} == {3}
