"""``caffe-prune quantize``, and ``train --quantize`` up to the run itself."""

from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner, Result

from pycaffe_prune.cli.quantize import quantize
from pycaffe_prune.cli.train import train
from pycaffe_prune.errors import PruneError
from pycaffe_prune.formats.caffemodel import read_caffemodel, write_caffemodel
from pycaffe_prune.pruning.few_bits import level_rule, on_few_levels
from tests.cli.prune.test_connections import NET, random_model


def run(tmp_path: Path, *options: str) -> Result:
    net, weights = tmp_path / "net.prototxt", tmp_path / "w.caffemodel"
    if not weights.exists():
        net.write_text(NET)
        write_caffemodel(weights, random_model(0))
    asked = ["--net", str(net), "--weights", str(weights), "--out", str(tmp_path / "few"), *options]
    return CliRunner().invoke(quantize, asked)


def test_each_layer_gets_its_levels_and_sharers_the_same(tmp_path):
    options = ["--layers", "all", "--levels", "3bits", "--levels", "conv*=ternary"]
    done = run(tmp_path, *options, "--levels", "conv2=8bits:min-max")
    assert done.exit_code == 0, done.output
    assert "written to" in done.output

    old, new = random_model(0), read_caffemodel(tmp_path / "few" / "quantized.caffemodel")
    rules = {"conv1": "ternary", "conv2": "8bits:min-max", "ip1": "3bits", "ip1_p": "3bits"}
    for name, rule in rules.items():
        before, after = (model.layer(name).blobs for model in (old, new))
        assert np.array_equal(after[0], on_few_levels(before[0], level_rule(rule)))
        assert np.array_equal(after[1], before[1])
        assert rule in done.output
    assert (tmp_path / "few" / "net.prototxt").exists()


def test_zeros_stay_where_asked_and_a_dry_run_writes_nothing(tmp_path):
    model = random_model(0)
    sparse = model.layer("ip1").blobs[0] * (np.arange(800).reshape(10, 80) % 3 == 0)
    (tmp_path / "net.prototxt").write_text(NET)
    blobs = {("ip1", 0): sparse, ("ip1_p", 0): sparse}
    write_caffemodel(tmp_path / "w.caffemodel", model.with_blobs(blobs))
    assert run(tmp_path, "--levels", "binary", "--dry-run").exit_code == 0
    assert not (tmp_path / "few").exists()
    assert run(tmp_path, "--levels", "binary", "--keep-zeros").exit_code == 0
    few = read_caffemodel(tmp_path / "few" / "quantized.caffemodel").layer("ip1").blobs[0]
    assert np.array_equal(few == 0, sparse == 0)
    assert len(np.unique(few)) == 3


def test_weights_that_are_not_finite_are_refused_by_layer(tmp_path):
    model = random_model(0)
    blob = model.layer("conv1").blobs[0].copy()
    blob[0, 0, 0, 0] = np.nan
    (tmp_path / "net.prototxt").write_text(NET)
    write_caffemodel(tmp_path / "w.caffemodel", model.with_blobs({("conv1", 0): blob}))
    done = run(tmp_path, "--layers", "conv1", "--levels", "2bits")
    assert isinstance(done.exception, PruneError)
    assert "layer 'conv1', blob 0 holds weights that are not finite" in str(done.exception)
    assert not (tmp_path / "few").exists()


@pytest.mark.parametrize(
    ("levels", "sentence"),
    [("9bits", "'9bits' tells no levels; these do"), ("ip1=", "ip1=: '' tells no levels")],
)
def test_what_tells_no_levels_is_a_fault_of_the_command_line(tmp_path, levels, sentence):
    done = run(tmp_path, "--levels", levels)
    assert done.exit_code == 2
    assert sentence in done.output


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        (["--quantize", "2bits"], "'2bits' is not LAYER=RULE"),
        (["--quantize", "a=2bits", "--quantize", "a=binary"], "layer 'a' is named twice"),
        (["--quantize", "a=few"], "'few' tells no levels"),
        (["--quantize", "a=2bits", "--masking", "m.toml"], "give one of them"),
    ],
)
def test_train_refuses_levels_that_it_cannot_follow(tmp_path, options, sentence):
    solver = tmp_path / "solver.prototxt"
    solver.write_text("max_iter: 1\n")
    asked = ["--solver", str(solver), "--out", str(tmp_path / "run"), "--engine", "torch"]
    done = CliRunner().invoke(train, [*asked, *options])
    assert done.exit_code == 2
    assert sentence in done.output
