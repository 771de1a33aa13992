"""A whole small experiment with the real Caffe: laws, content keys, kill and resume."""

import signal
import subprocess
import sys
import time
from contextlib import closing
from itertools import pairwise
from pathlib import Path

import pytest

from pycaffe_prune.engines.caffe.engine import CaffeEngine
from pycaffe_prune.errors import FormatError
from pycaffe_prune.experiments.baselines import best
from pycaffe_prune.experiments.reproduce import assemble
from pycaffe_prune.experiments.result import (
    ExperimentResult,
    read_result,
    write_result,
)
from pycaffe_prune.experiments.scheduler import run_stages
from pycaffe_prune.experiments.spec import read_experiment
from pycaffe_prune.formats.caffemodel import read_caffemodel
from pycaffe_prune.formats.mask import read_mask
from pycaffe_prune.pruning.connections import nonzero_where_masked
from tests.experiments.conftest import plan_of


def _without_times(result: ExperimentResult) -> object:
    fields = result.model_dump(exclude={"finished", "wall_seconds"})
    for point in fields["points"]:
        for part in point["rounds"]:
            del part["seconds"]
            for score in (part["before"], part["after"]):
                # After a resume the test images fall into other batches, and BLAS rounds otherwise.
                score["loss"] = round(score["loss"], 5)
    return fields


def test_with_other_layers_the_same_networks_are_counted_anew_and_nothing_is_trained(
    toml, tmp_path, digits, data_set
):
    pytest.importorskip("torch")
    from pycaffe_prune.engines.torch.engine import TorchEngine

    text = toml.read_text().replace("150", "5").replace("60", "5")
    text = text.replace("alphas = [0.8, 1.6]", "alphas = []")

    def layers_counted(layers: str, engine: TorchEngine | None) -> set[tuple[str, ...]]:
        toml.write_text(text.replace('["ip1", "ip2", "ip3"]', layers))
        plan = plan_of(toml, tmp_path, digits, data_set)
        with pytest.raises(FormatError, match="stage baseline-seed1 is not done"):
            best(plan.baselines)
        run_stages(plan.stages, engine, 2, lambda *_: None)
        result = assemble(read_experiment(toml), plan, data_set, "torch", 2)
        return {tuple(row.layer for row in point.rounds[-1].layers) for point in result.points}

    with closing(TorchEngine()) as engine:
        assert layers_counted('["ip1", "ip2"]', engine) == {("ip1", "ip2")}
    # What is trained is there: without an engine there can be no second training.
    assert layers_counted('["ip1", "ip2", "ip3"]', None) == {("ip1", "ip2", "ip3")}
    assert layers_counted('["ip1", "ip2"]', None) == {("ip1", "ip2")}


@pytest.mark.real_caffe
def test_the_points_obey_the_laws_of_the_paper(toml, tmp_path, digits, data_set, caffe_python):
    plan = plan_of(toml, tmp_path, digits, data_set)
    engine = CaffeEngine(caffe_python)
    run_stages(plan.stages, engine, 2, lambda *_: None)
    result = assemble(read_experiment(toml), plan, data_set, engine.name, 2)
    path = tmp_path / "result.json"
    write_result(path, result)
    assert read_result(path) == result

    baselines = [point for point in result.points if point.method == "baseline"]
    assert result.baseline.accuracy == max(point.accuracy for point in baselines)
    assert result.baseline.accuracy > 0.6
    total = 784 * 20 + 20 * 12 + 12 * 10
    for point in result.points:
        for part in point.rounds:
            assert sum(layer.weights for layer in part.layers) == total
            assert part.reduction == pytest.approx(
                1 - sum(layer.kept for layer in part.layers) / total
            )
            assert part.after.images == part.before.images == 297
    for chain in (planned.stages for planned in plan.chains("connections")):
        masks = [read_mask(stage.folder.mask).masks for stage in chain]
        for earlier, later in pairwise(masks):
            assert all((later[key] <= earlier[key]).all() for key in earlier)
        for stage, kept in zip(chain, masks, strict=True):
            final = read_caffemodel(stage.folder.training.final_weights)
            assert set(nonzero_where_masked(final, kept).values()) == {0}
            limits = read_mask(stage.folder.mask).parameters["thresholds"]
            assert limits == read_mask(chain[0].folder.mask).parameters["thresholds"]
    shapes = [point.units for point in result.select("units")]
    assert shapes == [{"ip1": 10, "ip2": 6}, {"ip1": 2, "ip2": 6}]
    assert [point.units for point in result.select("small")] == shapes
    for unit, small in zip(result.select("units"), result.select("small"), strict=True):
        assert unit.reduction == small.reduction
    assert all(point.seed == result.baseline.seed for point in result.select("connections"))
    assert not list(tmp_path.glob("stages/*/train/snapshots"))
    assert not list(tmp_path.glob("stages/*/pruned.caffemodel"))
    # Caffe's own test of this solver: 3 batches of 100 are the 297 and 3 of them again.
    last = result.baseline.rounds[-1].after
    assert last.cycled_images == 300
    assert last.correct <= round(last.cycled * 300) <= last.correct + 3
    assert [row.alpha for row in result.prediction.rates] == [0.8, 1.6]


@pytest.mark.real_caffe
def test_an_experiment_killed_again_and_again_gives_the_same_result(
    toml, tmp_path, digits, data_set, caffe_python, monkeypatch
):
    def command(out: str) -> list[str]:
        return [
            *(sys.executable, "-m", "pycaffe_prune", "reproduce", str(toml), "--jobs", "2"),
            *("--data", str(digits), "--out", out, "--caffe-python", str(caffe_python)),
        ]

    monkeypatch.chdir(tmp_path)
    subprocess.run(command("whole"), check=True, capture_output=True)
    for stages in (1, 5):  # of 12: each kill comes in the middle of others
        with subprocess.Popen(
            command("killed"), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
        ) as process:
            while len(list(Path("killed").glob("stages/*/stage.json"))) < stages:
                assert process.poll() is None
                time.sleep(0.01)
            process.send_signal(signal.SIGKILL)
    assert not Path("killed/result.json").exists()
    subprocess.run(command("killed"), check=True, capture_output=True)
    whole, killed = (read_result(Path(name) / "result.json") for name in ("whole", "killed"))
    assert _without_times(killed) == _without_times(whole)
    assert (tmp_path / "whole" / "report.html").is_file()
