"""Deep Compression: what it plans, and one small run of both of its ways to a pruned net."""

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

HEAD = """
name = "shared"
preset = "one"
title = "Shared"
solver = "solver.prototxt"
data = "mnist"
layers = ["ip1", "ip2", "ip3"]
[baseline]
seeds = [1]
iterations = 9
"""
MAGNITUDE = """
[[methods]]
kind = "magnitude"
sparsities = [0.5, 0.9]
iterations = 4
"""
OF = """
[[methods]]
kind = "deep-compression"
of = "magnitude"
at = 0.9
bits = [1, 3]
own = { ip3 = 2 }
gradient = "mean"
iterations = 6
"""
ALONE = """
[[methods]]
kind = "deep-compression"
name = "alone"
sparsity = 0.9
retraining = 4
bits = [3]
init = "density"
iterations = 0
"""


def test_one_run_of_both_ways_shares_as_many_values_as_it_is_told(
    tmp_path: Path, small_net: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = CliRunner()
    toml = small_net / "shared.toml"
    toml.write_text(HEAD + MAGNITUDE.replace("0.5, ", "") + OF + ALONE)
    monkeypatch.chdir(tmp_path)
    build_digits(Path("data/mnist"))
    asked = ["reproduce", str(toml), "--engine", "torch", "--jobs", "1", "--out", "run"]
    done = run.invoke(cli, [*asked, "--data", "data/mnist"], catch_exceptions=False)
    assert done.exit_code == 0, done.output

    result = read_result(Path("run/result.json"))
    points = {(point.method, point.setting.text): point for point in result.points}
    one, three = (points["deep-compression", f"bits = {bits}"] for bits in (1, 3))
    pruned, alone = points["magnitude", "sparsity = 0.9"], points["alone", "bits = 3"]
    for point in (one, three, alone):
        assert [layer.kept for layer in point.rounds[-1].layers] == [
            layer.kept for layer in pruned.rounds[-1].layers
        ]
    forms = [point.sizes.whole.stored_bytes["compressed"] for point in (one, three, pruned)]
    assert forms == sorted(forms)
    assert len(list(Path("run/stages").glob("magnitude-*"))) == 1  # the same one for both

    for folder, bits, own in (("deep-compression-1bits", 1, 2), ("alone-3bits", 3, 3)):
        (trained,) = Path("run").rglob(f"{folder}*/**/final.caffemodel")
        model = read_caffemodel(trained)
        for name in ("ip1", "ip2", "ip3"):
            values = np.unique(model.layer(name).blobs[0])
            assert len(values[values != 0]) == 1 << (own if name == "ip3" else bits)


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        (OF, "no method before it is called 'magnitude'"),
        (MAGNITUDE + OF.replace("ip3", "ip9"), "own: layer 'ip9' shares no values"),
        (MAGNITUDE + OF.replace("[1, 3]", "[3, 3]"), "3 is given twice"),
        (MAGNITUDE + OF.replace("[1, 3]", "[17]"), "less than or equal to 16"),
        (MAGNITUDE + OF + "rounds = 2", "rounds: goes with sparsity; the net is magnitude's"),
        (ALONE + "at = 0.5", "at: goes with of"),
        (ALONE.replace("sparsity = 0.9", ""), "give either sparsity, or of"),
    ],
)
def test_settings_that_cannot_be_followed_are_refused(
    small_net: Path, text: str, sentence: str
) -> None:
    toml = small_net / "shared.toml"
    toml.write_text(HEAD + text)
    with pytest.raises(FormatError, match=sentence):
        read_experiment(toml)


def test_one_point_of_the_other_method_is_meant(
    tmp_path: Path, small_net: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    toml = small_net / "shared.toml"
    monkeypatch.chdir(tmp_path)
    build_digits(Path("data/mnist"))
    asked = ["reproduce", str(toml), "--engine", "torch", "--data", "data/mnist", "--dry-run"]
    for given, sentence in (("at = 0.7", "0 points .* at 0.7, not one"), ("", "2 points of")):
        toml.write_text(HEAD + MAGNITUDE + OF.replace("at = 0.9", given))
        with pytest.raises(FormatError, match=f"{sentence}.*there are: 0.5, 0.9"):
            CliRunner().invoke(cli, asked, catch_exceptions=False)
