"""Commands on a net whose layers have strangers' names: every name is seen, and none acts."""

from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner

from pycaffe_prune.cli import cli, progress
from pycaffe_prune.cli.endings import exit_code
from pycaffe_prune.cli.reproduce.progress import sweep_progress
from pycaffe_prune.engines.base import Event
from pycaffe_prune.formats.caffe_pb2 import LayerParameter, NetParameter
from pycaffe_prune.formats.caffemodel import Caffemodel, Layer, write_caffemodel
from pycaffe_prune.formats.prototxt import write_prototxt
from tests.nasty import NASTY, assert_nothing_hidden

UNITS = 4


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """A net of fully connected layers, one of each name, and its weights."""
    net = NetParameter(name="\x1b[31mnet")
    feed = net.layer.add(name="data", type="Input", top=["data"])
    feed.input_param.shape.add(dim=[1, UNITS])
    layers, before = [], "data"
    random = np.random.default_rng(0)
    for name in NASTY:
        layer = LayerParameter(name=name, type="InnerProduct", bottom=[before], top=[name])
        layer.inner_product_param.num_output = UNITS
        net.layer.append(layer)
        weights = random.normal(size=(UNITS, UNITS)).astype(np.float32)
        layers.append(Layer(layer, (weights, np.zeros(UNITS, np.float32))))
        before = name
    folder = tmp_path_factory.mktemp("nasty")
    write_prototxt(folder / "net.prototxt", net)
    write_caffemodel(folder / "w.caffemodel", Caffemodel(tuple(layers), NetParameter(name="a\x07")))
    return folder / "net.prototxt", folder / "w.caffemodel"


def run(*arguments: object) -> str:
    result = CliRunner().invoke(cli, [str(item) for item in arguments], catch_exceptions=False)
    assert result.exit_code == 0
    return result.output


def assert_all_seen(text: str) -> None:
    assert_nothing_hidden(text)
    assert [name for name, seen in NASTY.items() if seen not in text] == []


def test_inspect_shows_every_name(files: tuple[Path, Path]) -> None:
    net, weights = files
    for text in (
        run("inspect", net),
        run("inspect", weights),
        run("inspect", weights, "--storage"),
    ):
        assert_all_seen(text)
    assert_nothing_hidden(run("inspect", net, "--json"))


def test_prune_shows_every_name(files: tuple[Path, Path], tmp_path: Path) -> None:
    options = ("--net", files[0], "--weights", files[1], "--out", tmp_path, "--dry-run")
    assert_all_seen(run("prune", "connections", *options, "--alpha", "0.5"))
    text = run("prune", "units", *options, "--ratio", "0.5")
    last = list(NASTY)[-1]  # keeps its units: it is the net's output
    assert [name for name, seen in NASTY.items() if seen not in text and name != last] == []
    assert_nothing_hidden(text)


@pytest.mark.parametrize("name", NASTY)
def test_an_error_shows_the_name(
    files: tuple[Path, Path], tmp_path: Path, name: str, capsys: pytest.CaptureFixture[str]
) -> None:
    net, weights = files
    wanted = ["prune", "connections", "--net", str(net), "--weights", str(weights)]
    wanted += ["--alpha", f"x{name}x=1", "--out", str(tmp_path)]
    assert exit_code(lambda: cli(wanted, standalone_mode=False)) == 1
    said = capsys.readouterr().err
    assert_nothing_hidden(said)
    assert f"x{NASTY[name]}x" in said
    assert said.count("\n") == 1


class _Stage:
    iterations = 10

    def __init__(self, name: str) -> None:
        self.key = self.label = name

    def output(self) -> None:
        return None


def test_progress_shows_every_name(capsys: pytest.CaptureFixture[str]) -> None:
    stages = [_Stage(name) for name in NASTY]
    with sweep_progress(stages) as observe:  # type: ignore[arg-type]
        for stage in stages:
            for event in (Event(event="start"), None):
                observe(stage, event)  # type: ignore[arg-type]
    assert_all_seen(capsys.readouterr().err)
    for name in NASTY:
        with progress.training_progress(name, 10) as watch:
            watch(Event(event="warning", message=name))
            watch(Event(event="weights", message=name))
        with progress.tests_progress(name, 2, 0) as advance:
            advance(1, name)
    assert_all_seen(capsys.readouterr().err)
