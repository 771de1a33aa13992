from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner, Result

from pycaffe_prune.cli.compress.command import compress
from pycaffe_prune.errors import PruneError
from pycaffe_prune.formats.caffe_pb2 import LayerParameter
from pycaffe_prune.formats.caffemodel import Caffemodel, Layer, write_caffemodel
from pycaffe_prune.formats.compressed.file import read_compressed
from pycaffe_prune.formats.hashed import hashed_blob
from pycaffe_prune.formats.sparse import sparse_size
from pycaffe_prune.formats.weights import read_weights, write_weights


@pytest.fixture(scope="module")
def weights(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Three layers, of which the first has few values left and the last no blobs."""
    draws = np.random.default_rng(3)
    first = np.rint(draws.standard_normal((40, 50)) * 0.7).astype(np.float32)
    second = draws.standard_normal((10, 40)).astype(np.float32)
    layers = (
        Layer(LayerParameter(name="[ip1]", type="InnerProduct"), (first, np.ones(40, np.float32))),
        Layer(LayerParameter(name="ip2", type="InnerProduct"), (second,)),
        Layer(LayerParameter(name="loss", type="Softmax")),
    )
    path = tmp_path_factory.mktemp("weights") / "a.caffemodel"
    write_caffemodel(path, Caffemodel(layers))
    return path


def run(*arguments: Path | str) -> Result:
    return CliRunner().invoke(compress, [str(item) for item in arguments], catch_exceptions=False)


def rows(output: str) -> dict[str, list[str]]:
    return {line.split()[0]: line.split() for line in output.splitlines() if line.split()}


def test_the_table_counts_every_byte_of_the_file(weights: Path, tmp_path: Path) -> None:
    out = tmp_path / "a.cpz"
    output = run("--weights", weights, "--out", out).output
    found, model = rows(output), read_weights(weights)
    size = out.stat().st_size
    assert f"written: {out}, {size:,} bytes" in output
    parts = [found[name][-2] for name in ("[ip1]", "ip2", "(definitions)")]
    assert sum(int(part.replace(",", "")) for part in parts) == size
    for layer in model.layers[:2]:
        kept = sum(int(np.count_nonzero(blob)) for blob in layer.blobs)
        values = sum(blob.size for blob in layer.blobs)
        assert found[layer.name][1:3] == [f"{values:,}", f"{kept:,}"]
    assert found["all"][1] == "2,440"
    assert "float32 values" in output
    for form in (9760, weights.stat().st_size, sparse_size(model), size):
        assert f" {form:,} " in output
    assert [blob.tobytes() for _, blob in read_compressed(out).blobs()] == [
        blob.tobytes() for _, blob in model.blobs()
    ]


def test_a_dry_run_says_the_same_and_writes_nothing(weights: Path, tmp_path: Path) -> None:
    done = run("--weights", weights, "--out", tmp_path / "a.cpz").output
    would = run("--weights", weights, "--out", tmp_path / "b.cpz", "--dry-run").output
    assert would.splitlines()[0] == done.splitlines()[0].replace("a.cpz", "b.cpz").replace(
        "written:", "would write"
    )
    assert would.splitlines()[1:] == done.splitlines()[1:]
    assert [path.name for path in tmp_path.iterdir()] == ["a.cpz"]


def test_weights_of_any_form_are_taken(weights: Path, tmp_path: Path) -> None:
    write_weights(tmp_path / "a.npz", read_weights(weights))
    run("--weights", tmp_path / "a.npz", "--out", tmp_path / "a.cpz")
    run("--weights", tmp_path / "a.cpz", "--out", tmp_path / "b.cpz")
    assert (tmp_path / "a.cpz").read_bytes() == (tmp_path / "b.cpz").read_bytes()


def test_the_input_is_not_overwritten(weights: Path) -> None:
    with pytest.raises(PruneError, match="is an input and is not overwritten"):
        run("--weights", weights, "--out", weights)


def test_hashed_layers_are_stored_by_their_buckets_where_told(tmp_path: Path) -> None:
    values = np.random.default_rng(0).standard_normal(60).astype(np.float32)
    layer = LayerParameter(name="a=b", type="InnerProduct")
    blob = hashed_blob(values, (30, 40), 9)
    source, out = tmp_path / "w.caffemodel", tmp_path / "w.cpz"
    write_caffemodel(source, Caffemodel((Layer(layer, (blob,)),)))
    run("--weights", source, "--out", out, "--hashed", "a=b=60:9")
    assert out.stat().st_size < 400
    assert read_compressed(out).layer("a=b").blobs[0].tobytes() == blob.tobytes()
    for told, sentence in (
        ("a=b=60:8", "'a=b', blob 0.*none of 60 values by the hash with the seed 8"),
        ("c=60:9", "layer 'c' has no blob 0 to be hashed"),
    ):
        with pytest.raises(PruneError, match=sentence):
            run("--weights", source, "--out", tmp_path / "no.cpz", "--hashed", told)
    assert (
        "is not LAYER=BUCKETS:SEED"
        in run("--weights", source, "--out", tmp_path / "no.cpz", "--hashed", "a=b=60").output
    )
    assert not (tmp_path / "no.cpz").exists()
