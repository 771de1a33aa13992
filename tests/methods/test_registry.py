"""What holds for every method, and for one that another package brings."""

import re
import sys
from collections.abc import Iterator
from importlib import invalidate_caches
from pathlib import Path

import pytest
from click.testing import CliRunner

from data_prep.digits import build_digits
from pycaffe_prune.cli import cli
from pycaffe_prune.errors import FormatError
from pycaffe_prune.experiments.result import read_result
from pycaffe_prune.methods import registry

TOY = '''
"""Keeps every second weight of each layer."""

from dataclasses import dataclass
from typing import ClassVar, Literal

import numpy as np

from pycaffe_prune.experiments.baselines import best
from pycaffe_prune.formats.caffemodel import read_caffemodel, write_caffemodel
from pycaffe_prune.formats.files import sha256_of
from pycaffe_prune.formats.mask import MaskFile, write_mask
from pycaffe_prune.methods.base import Chain, Method, Retraining
from pycaffe_prune.pruning.connections import apply_masks


class Toy(Method):
    title: ClassVar[str] = "every so manyth weight"
    setting: ClassVar[str] = "step"
    source: ClassVar[str] = "nobody"

    kind: Literal["toy"] = "toy"
    steps: tuple[int, ...]
    iterations: int

    def chains(self, bench):
        return [
            Chain((ToyStage(bench.context, self.iterations, bench.baselines, step),), step)
            for step in self.steps
        ]

    def most_stages(self, others):
        return len(self.steps)


@dataclass(frozen=True, eq=False)
class ToyStage(Retraining):
    baselines: tuple
    step: int

    kind = "toy"

    @property
    def inputs(self):
        return self.baselines

    @property
    def settings(self):
        return {"step": self.step}

    @property
    def label(self):
        return f"toy-step{self.step}"

    def work(self, folder, engine, observe):
        start = best(self.baselines)
        source = start.folder.training.final_weights
        model = read_caffemodel(source)
        masks = {
            (name, 0): np.arange(model.layer(name).blobs[0].size).reshape(
                model.layer(name).blobs[0].shape
            ) % self.step == 0
            for name in self.context.layers
        }
        write_caffemodel(folder.pruned, apply_masks(model, masks))
        write_mask(folder.mask, MaskFile(masks, sha256_of(source), "toy", {"step": self.step}))
        result = self._train(folder, engine, observe, start.seed, net=self._whole_net(folder),
                             weights=folder.pruned, mask=folder.mask)
        kept = {name: int(masks[name, 0].sum()) for name in self.context.layers}
        return self._found(folder, observe, result, kept, None)
'''
EXPERIMENT = """
name = "toy"
preset = "one"
title = "Toy"
solver = "solver.prototxt"
data = "mnist"
layers = ["ip1", "ip2", "ip3"]
[baseline]
seeds = [1]
iterations = 20
[[methods]]
kind = "toy"
steps = [2, 4]
iterations = 5
[[methods]]
kind = "toy"
name = "coarse"
steps = [8]
iterations = 5
"""


@pytest.fixture
def toy(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """The toy method, installed as a package is: a module, and metadata with an entry point."""
    packages = tmp_path / "packages"
    (packages / "toy-1.0.dist-info").mkdir(parents=True)
    (packages / "toy_method.py").write_text(TOY)
    (packages / "toy-1.0.dist-info" / "METADATA").write_text("Name: toy\nVersion: 1.0\n")
    points = packages / "toy-1.0.dist-info" / "entry_points.txt"
    points.write_text(f"[{registry.ENTRY_POINTS}]\ntoy = toy_method:Toy\n")
    monkeypatch.syspath_prepend(str(packages))
    invalidate_caches()
    registry.methods.cache_clear()
    yield points
    registry.methods.cache_clear()
    sys.modules.pop("toy_method", None)


@pytest.mark.parametrize("kind", sorted(registry.methods()))
def test_a_method_describes_itself(kind: str) -> None:
    method = registry.methods()[kind]
    assert re.fullmatch(r"[a-z0-9]+(-[a-z0-9]+)*", kind)
    assert method.title
    assert method.setting
    assert method.source
    assert method.engines <= {"caffe", "torch"}
    assert method.control is None or method.control in {"baseline", *registry.methods()}
    assert method.__doc__


def test_a_method_of_another_package_is_known_everywhere(
    toy: Path, tmp_path: Path, small_net: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = CliRunner()
    assert "every so manyth weight" in run.invoke(cli, ["prune", "--help"]).output

    toml = small_net / "toy.toml"
    toml.write_text(EXPERIMENT)
    monkeypatch.chdir(tmp_path)
    build_digits(Path("data/mnist"))
    asked = [
        "reproduce",
        str(toml),
        "--engine",
        "torch",
        "--jobs",
        "1",
        "--out",
        "run",
        "--data",
        "data/mnist",
    ]
    listed = run.invoke(cli, [*asked, "--dry-run"], catch_exceptions=False)
    assert "toy-step4" in listed.output
    done = run.invoke(cli, asked, catch_exceptions=False)
    assert done.exit_code == 0
    result = read_result(Path("run/result.json"))
    assert [(record.name, record.kind) for record in result.methods] == [
        ("baseline", "baseline"),
        ("toy", "toy"),
        ("coarse", "toy"),
    ]
    points = [point for point in result.points if point.method != "baseline"]
    assert [point.setting.text for point in points] == ["step = 2", "step = 4", "step = 8"]
    for point in points:
        assert point.sizes is not None
        kept = sum(layer.kept for layer in point.rounds[-1].layers)
        assert point.sizes.whole.non_zero_weights <= kept
        assert point.rounds[-1].images == 5 * 32

    registry.methods.cache_clear()
    toy.unlink()  # the package is gone: a result tells its methods itself
    invalidate_caches()
    registry.methods.cache_clear()
    assert "toy" not in registry.methods()
    told = run.invoke(cli, ["report", "run/result.json", "--out", "page"], catch_exceptions=False)
    assert told.exit_code == 0
    for name in ("report.md", "report.html"):
        text = Path("page", name).read_text()
        assert "every so manyth weight (coarse)" in text
        assert "step = 8" in text


@pytest.mark.parametrize(
    ("target", "message"),
    [
        ("toy_method:ToyStage", "is no Method"),
        ("toy_method:Nothing", "cannot be loaded"),
        ("pycaffe_prune.methods.units:Units", "two methods are called 'units'"),
    ],
)
def test_what_a_package_brings_in_error_is_named(toy: Path, target: str, message: str) -> None:
    toy.write_text(f"[{registry.ENTRY_POINTS}]\ntoy = {target}\n")
    registry.methods.cache_clear()
    with pytest.raises(FormatError, match=message):
        registry.methods()
