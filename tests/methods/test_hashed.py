"""Methods hashed and distilled: what they plan, one small run of both, and what they refuse."""

from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner
from pydantic import ValidationError

from data_prep.digits import build_digits
from pycaffe_prune.cli import cli
from pycaffe_prune.engines.job import Job
from pycaffe_prune.errors import FormatError
from pycaffe_prune.experiments.result import read_result
from pycaffe_prune.experiments.spec import read_experiment
from pycaffe_prune.formats.caffemodel import read_caffemodel
from pycaffe_prune.formats.hashed import bucket_values
from pycaffe_prune.formats.mask import read_mask
from pycaffe_prune.methods.distilled import Distilled
from pycaffe_prune.methods.hashed import Hashed
from pycaffe_prune.pruning.hashed import layer_seed
from tests.methods.test_moving import HEAD

HASHED = """
[[methods]]
kind = "hashed"
compressions = [0.125]
layers = ["ip1", "ip2"]
seeds = [1, 5]
iterations = 8
"""
DISTILLED = """
[[methods]]
kind = "distilled"
of = "hashed"
temperature = 3
mix = 0.7
"""


PRUNED = """
[[methods]]
kind = "magnitude"
sparsities = [0.5]
rounds = 2
iterations = 3
[[methods]]
kind = "distilled"
name = "distilled-pruned"
of = "magnitude"
"""


def test_hashed_nets_keep_their_buckets_with_a_teacher_and_without(
    tmp_path: Path, small_net: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    toml = small_net / "hashed.toml"
    toml.write_text(HEAD + HASHED + DISTILLED + PRUNED)
    monkeypatch.chdir(tmp_path)
    build_digits(Path("data/mnist"))
    asked = ["reproduce", str(toml), "--engine", "torch", "--jobs", "1", "--out", "run"]
    done = CliRunner().invoke(cli, [*asked, "--data", "data/mnist"], catch_exceptions=False)
    assert done.exit_code == 0, done.output

    points = [point for point in read_result(Path("run/result.json")).points if point.setting.value]
    *points, pruned, taught_one = points
    assert (pruned.setting.text, taught_one.setting.text) == ("sparsity = 0.5", "magnitude 0.5")
    (stage,) = Path("run/stages").glob("magnitude-0.5-round2-taught-????????????")
    mask = read_mask(stage / "kept.mask.h5").masks["ip1", 0]
    weights = read_caffemodel(stage / "train" / "final.caffemodel").layer("ip1").blobs[0]
    assert not weights[~mask].any()
    assert np.count_nonzero(~mask) == round(0.5 * mask.size)
    assert taught_one.rounds[-1].layers == pruned.rounds[-1].layers
    assert [(point.method, point.setting.text, point.seed) for point in points] == [
        ("hashed", "compression = 0.125", 1),
        ("hashed", "compression = 0.125", 5),
        ("distilled", "hashed 0.125", 1),
        ("distilled", "hashed 0.125", 5),
    ]
    found = {}
    for seed in (1, 5):
        for taught in ("", "-taught"):
            (stage,) = Path("run/stages").glob(f"hashed-0.125-seed{seed}{taught}-????????????")
            model = read_caffemodel(stage / "train" / "final.caffemodel")
            found[seed, taught] = model
            for place, name in enumerate(("ip1", "ip2")):
                blob = model.layer(name).blobs[0]
                buckets = round(blob.size / 8)
                assert bucket_values(blob, buckets, layer_seed(seed, place)) is not None
                assert len(np.unique(np.abs(blob))) <= buckets
            job = Job.model_validate_json((stage / "train" / "job.json").read_bytes())
            assert (job.distillation is not None) == bool(taught)
            assert not (stage / "fillers").exists()
            if job.distillation:
                assert (job.distillation.temperature, job.distillation.mix) == (3, 0.7)
    for seed in (1, 5):
        one, other = (found[seed, taught].layer("ip1").blobs[0] for taught in ("", "-taught"))
        assert not np.array_equal(one, other)
    for point in points:
        stored = point.sizes.whole.stored_bytes
        assert stored["compressed"] < stored["caffemodel"] / 4


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        (HASHED.replace("[0.125]", "[0]"), "greater than 0"),
        (HASHED.replace("[1, 5]", "[1, 1]"), "1 is given twice"),
        (HASHED.replace("[1, 5]", "[]"), "at least 1 item"),
        (DISTILLED, "of: no method before it is called 'hashed'; there are: "),
        (HASHED + DISTILLED.replace("0.7", "1.1"), "less than or equal to 1"),
    ],
)
def test_settings_that_cannot_be_followed_are_refused(
    small_net: Path, text: str, sentence: str
) -> None:
    toml = small_net / "hashed.toml"
    toml.write_text(HEAD + text)
    with pytest.raises(FormatError, match=sentence):
        read_experiment(toml)


def test_most_stages_are_those_of_the_students() -> None:
    hashed = Hashed(compressions=(0.1, 0.2), seeds=(1, 2, 3), iterations=9)
    assert hashed.most_stages([]) == Distilled(of="hashed").most_stages([hashed]) == 6
    with pytest.raises(ValidationError, match="temperature"):
        Distilled(of="hashed", temperature=0)
