"""``caffe-prune share``, and ``train --tie`` up to the run itself."""

from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner, Result

from pycaffe_prune.cli.share import share
from pycaffe_prune.errors import SurgeryError
from pycaffe_prune.formats.caffemodel import read_caffemodel, write_caffemodel
from tests.cli.prune.test_connections import NET, random_model


def run(tmp_path: Path, *options: str) -> Result:
    net, weights = tmp_path / "net.prototxt", tmp_path / "w.caffemodel"
    if not weights.exists():
        net.write_text(NET)
        write_caffemodel(weights, random_model(0))
    asked = ["--net", str(net), "--weights", str(weights), "--out", str(tmp_path / "few"), *options]
    return CliRunner().invoke(share, asked)


def test_each_layer_gets_its_bits_and_sharers_the_same_values(tmp_path):
    options = ["--layers", "all", "--bits", "3", "--bits", "conv*=2", "--bits", "conv2=4"]
    done = run(tmp_path, *options)
    assert done.exit_code == 0, done.output

    old, new = random_model(0), read_caffemodel(tmp_path / "few" / "shared.caffemodel")
    for name, bits in {"conv1": 2, "conv2": 4, "ip1": 3, "ip1_p": 3}.items():
        before, after = (model.layer(name).blobs for model in (old, new))
        assert len(np.unique(after[0])) == 1 << bits
        assert np.array_equal(after[1], before[1])
        assert np.abs(after[0] - before[0]).max() < np.abs(before[0]).max()
    assert np.array_equal(new.layer("ip1").blobs[0], new.layer("ip1_p").blobs[0])
    assert (tmp_path / "few" / "net.prototxt").exists()
    rows = [line.split("│") for line in done.output.splitlines() if line.startswith("│")]
    assert [rows[1][place].strip() for place in (1, 4, 5)] == ["conv2", "4", "16"]


def test_a_dry_run_writes_nothing_and_a_lot_has_its_seed(tmp_path):
    assert run(tmp_path, "--bits", "3", "--dry-run").exit_code == 0
    assert not (tmp_path / "few").exists()
    models = []
    for seed in ("1", "1", "2"):
        run(tmp_path, "--bits", "3", "--init", "random", "--seed", seed)
        models.append(read_caffemodel(tmp_path / "few" / "shared.caffemodel").layer("ip1").blobs[0])
    assert np.array_equal(models[0], models[1])
    assert not np.array_equal(models[0], models[2])


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        (["--bits", "17"], "'17' tells no number of bits from 1 to 16"),
        (["--bits", "ip1=2.5"], "'ip1=2.5' tells no number of bits"),
        (["--bits", "3", "--seed", "1"], "--seed goes with --init random"),
    ],
)
def test_what_means_nothing_is_refused(tmp_path, options, sentence):
    done = run(tmp_path, *options)
    assert done.exit_code == 2
    assert sentence in done.output


def test_a_layer_that_is_not_there_is_named(tmp_path):
    done = run(tmp_path, "--bits", "ip9=3")
    assert isinstance(done.exception, SurgeryError)
    assert "ip9" in str(done.exception)
