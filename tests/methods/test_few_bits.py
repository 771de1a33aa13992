"""Method few-bits: what it plans, one small run, and what it refuses."""

from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner

from data_prep.digits import build_digits
from pycaffe_prune.cli import cli
from pycaffe_prune.errors import FormatError
from pycaffe_prune.experiments.result import read_result
from pycaffe_prune.experiments.spec import read_experiment
from pycaffe_prune.formats.caffemodel import read_caffemodel
from tests.methods.test_moving import HEAD

STEPS = """
[[methods]]
kind = "few-bits"
bits = [1, 3]
own = { ip3 = "2bits:min-max" }
iterations = 8
"""
TERNARY = """
[[methods]]
kind = "few-bits"
name = "ternary-once"
rule = "ternary"
layers = ["ip1", "ip2"]
iterations = 0
"""


def test_points_have_as_many_levels_as_told_with_and_without_retraining(
    tmp_path: Path, small_net: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    toml = small_net / "few.toml"
    toml.write_text(HEAD + STEPS + TERNARY)
    monkeypatch.chdir(tmp_path)
    build_digits(Path("data/mnist"))
    asked = ["reproduce", str(toml), "--engine", "torch", "--jobs", "1", "--out", "run"]
    done = CliRunner().invoke(cli, [*asked, "--data", "data/mnist"], catch_exceptions=False)
    assert done.exit_code == 0, done.output

    points = [point for point in read_result(Path("run/result.json")).points if point.setting.value]
    assert [(point.method, point.setting.text) for point in points] == [
        ("few-bits", "bits = 1"),
        ("few-bits", "bits = 3"),
        ("ternary-once", "ternary"),
    ]
    wanted = {"few-bits-1bits-mse": (2, 2), "few-bits-3bits-mse": (8, 8)}
    for label, counts in (wanted | {"ternary-once-ternary": (3, 3)}).items():
        (trained,) = Path("run/stages").glob(f"{label}-*/train/final.caffemodel")
        model = read_caffemodel(trained)
        found = tuple(len(np.unique(model.layer(name).blobs[0])) for name in ("ip1", "ip2"))
        assert found == counts
        levels = len(np.unique(model.layer("ip3").blobs[0]))
        assert levels > 100 if label.startswith("ternary") else levels == 4
    assert points[0].rounds[-1].images == 8 * 32
    assert points[2].rounds[-1].images == 0


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        (STEPS.replace("ip3", "ip9"), "own: layer 'ip9' keeps its weights; there are: ip1"),
        (STEPS.replace("2bits:min-max", "9bits"), "'9bits' tells no levels"),
        (STEPS.replace("[1, 3]", "[1, 1]"), "1 is given twice"),
        (STEPS.replace("[1, 3]", "[9]"), "less than or equal to 8"),
        (STEPS.replace("bits = [1, 3]", ""), "bits: the rule 'mse' needs some"),
        (TERNARY + "bits = [2]", "bits: the rule 'ternary' takes none"),
    ],
)
def test_settings_that_cannot_be_followed_are_refused(
    small_net: Path, text: str, sentence: str
) -> None:
    toml = small_net / "few.toml"
    toml.write_text(HEAD + text)
    with pytest.raises(FormatError, match=sentence):
        read_experiment(toml)
