import json
from collections.abc import Callable, Mapping, Sequence
from io import StringIO
from pathlib import Path
from threading import Event

import numpy as np
import pytest
from google.protobuf import text_format
from numpy.typing import NDArray
from rich.console import Console

from data_prep.lmdb_writer import lmdb_content_checksum
from data_prep.manifest import verify_manifest
from pycaffe_prune.engines.caffe.engine import CaffeEngine
from pycaffe_prune.errors import DataError, EngineError, InterruptedRunError
from pycaffe_prune.experiments.features.build import LMDB_NAMES, FeatureRequest, build_features
from pycaffe_prune.formats.caffe_pb2 import NetParameter
from pycaffe_prune.formats.caffemodel import Caffemodel, Layer, write_caffemodel
from pycaffe_prune.formats.lmdb_images import stored_images
from pycaffe_prune.formats.mean import read_mean

Arrays = Mapping[str, NDArray[np.float32]]

NET = """
layer { name: "data" type: "Input" top: "data"
  input_param { shape { dim: 1 dim: 1 dim: 24 dim: 20 } } }
layer { name: "conv" type: "Convolution" bottom: "data" top: "conv"
  convolution_param { num_output: 2 kernel_size: 1 } }
layer { name: "after" type: "ReLU" bottom: "conv" top: "after" }
"""
WEIGHTS = np.array([0.5, -2], np.float32)
BIAS = np.array([0, 1], np.float32)


class Counting:
    """An engine that computes the net above, and counts; it fails at the call it is told."""

    name = "counting"

    def __init__(self, fails_at: int | None = None, stops: Event | None = None) -> None:
        self.calls: list[int] = []
        self._fails_at, self._stops = fails_at, stops

    def forward(
        self, _net: Path, _weights: Path, inputs: Arrays, _outputs: Sequence[str]
    ) -> list[NDArray[np.float32]]:
        if len(self.calls) == self._fails_at:
            raise EngineError("died")
        images = inputs["data"]
        self.calls.append(len(images))
        if self._stops and len(self.calls) == 2:
            self._stops.set()
        return [images * WEIGHTS.reshape(2, 1, 1) + BIAS.reshape(2, 1, 1)]


@pytest.fixture
def request_(tmp_path: Path, digits: Path) -> FeatureRequest:
    """The features of a small net for 1,797 digits."""
    (tmp_path / "net.prototxt").write_text(NET)
    conv = text_format.Parse(NET, NetParameter()).layer[1]
    layer = Layer(conv, (WEIGHTS.reshape(2, 1, 1, 1), BIAS))
    write_caffemodel(tmp_path / "w.caffemodel", Caffemodel((layer,)))
    return FeatureRequest(
        net=tmp_path / "net.prototxt",
        weights=tmp_path / "w.caffemodel",
        blob="conv",
        data=digits,
        grid=2,
        mean=np.full((1, 1, 1), 100, np.float32),
        scale=0.1,
        batch=200,
    )


@pytest.fixture
def quiet() -> Console:
    return Console(file=StringIO(), width=1000)


def build(
    out: Path, request: FeatureRequest, engine: object, quiet: Console, **more: object
) -> None:
    build_features(out, request, engine, console=quiet, **more)  # type: ignore[arg-type]


def checksums(out: Path) -> list[str]:
    return [lmdb_content_checksum(out / name) for name in LMDB_NAMES.values()]


@pytest.mark.parametrize("jobs", [1, 3])
def test_features_are_the_blobs_of_all_images_in_order(
    tmp_path: Path, request_: FeatureRequest, quiet: Console, digits: Path, jobs: int
) -> None:
    engine = Counting()
    build(tmp_path / "f", request_, engine, quiet, jobs=jobs)
    assert sum(engine.calls) == 1797
    assert max(engine.calls) == 200
    for split in ("train", "test"):
        found = list(stored_images(tmp_path / "f" / LMDB_NAMES[split]))
        images = list(stored_images(digits / f"mnist_{split}_lmdb"))
        assert [image.label for image in found] == [image.label for image in images]
        cut = np.stack([image.pixels[0, 2:26, 4:24] for image in images])
        cells = 0.1 * (cut.reshape(-1, 2, 12, 2, 10).mean((2, 4)) - 100)
        wanted = cells[:, None] * WEIGHTS.reshape(2, 1, 1) + BIAS.reshape(2, 1, 1)
        values = np.stack([image.pixels for image in found])
        assert values.dtype == np.float32
        np.testing.assert_allclose(values, wanted, rtol=1e-4, atol=1e-4)
        if split == "train":
            mean = read_mean(tmp_path / "f" / "mean.binaryproto")
            np.testing.assert_allclose(mean, wanted.mean(0), rtol=1e-3, atol=1e-3)


def test_the_manifest_holds_and_nothing_else_is_left(
    tmp_path: Path, request_: FeatureRequest, quiet: Console
) -> None:
    out = tmp_path / "f"
    build(out, request_, Counting(), quiet)
    manifest = verify_manifest(out)
    assert manifest.name == "features"
    assert manifest.is_sample
    assert {name: split.shape for name, split in manifest.splits.items()} == {
        "train": (2, 2, 2),
        "test": (2, 2, 2),
    }
    assert {path.name for path in out.iterdir()} - {".build.lock"} == {
        *("features_train_lmdb", "features_test_lmdb"),
        *("features.json", "manifest.json", "mean.binaryproto"),
    }


def test_what_is_there_is_not_computed_again_unless_forced(
    tmp_path: Path, request_: FeatureRequest, quiet: Console
) -> None:
    build(tmp_path / "f", request_, Counting(), quiet)
    again, forced = Counting(), Counting()
    build(tmp_path / "f", request_, again, quiet)
    assert not again.calls
    build(tmp_path / "f", request_, forced, quiet, force=True)
    assert sum(forced.calls) == 1797


def test_after_a_failure_only_the_missing_batches_are_computed(
    tmp_path: Path, request_: FeatureRequest, quiet: Console
) -> None:
    build(tmp_path / "whole", request_, Counting(), quiet)
    broken, rest = Counting(fails_at=4), Counting()
    with pytest.raises(EngineError, match="died"):
        build(tmp_path / "f", request_, broken, quiet)
    assert not (tmp_path / "f" / "manifest.json").exists()
    build(tmp_path / "f", request_, rest, quiet)
    assert sum(broken.calls) + sum(rest.calls) == 1797
    assert checksums(tmp_path / "f") == checksums(tmp_path / "whole")


def emptied(part: Path) -> None:
    part.write_bytes(b"")


def cut_short(part: Path) -> None:
    part.write_bytes(part.read_bytes()[:-100])


def with_a_wrong_byte(part: Path) -> None:
    content = bytearray(part.read_bytes())
    content[len(content) // 2] ^= 1
    part.write_bytes(content)


@pytest.mark.parametrize("harm", [emptied, cut_short, with_a_wrong_byte])
def test_a_damaged_part_is_named_and_only_it_is_computed_again(
    tmp_path: Path, request_: FeatureRequest, quiet: Console, harm: Callable[[Path], None]
) -> None:
    build(tmp_path / "whole", request_, Counting(), quiet)
    with pytest.raises(EngineError):
        build(tmp_path / "f", request_, Counting(fails_at=4), quiet)
    part = next((tmp_path / "f").glob(".parts/*/train-00000200-*"))
    harm(part)
    with pytest.raises(DataError, match=rf"{part.name}: is damaged .*remove it"):
        build(tmp_path / "f", request_, Counting(), quiet)
    part.unlink()
    build(tmp_path / "f", request_, rest := Counting(), quiet)
    assert rest.calls == [200]
    assert checksums(tmp_path / "f") == checksums(tmp_path / "whole")


def test_it_can_be_stopped_and_goes_on(
    tmp_path: Path, request_: FeatureRequest, quiet: Console
) -> None:
    stopped = Event()
    first, rest = Counting(stops=stopped), Counting()
    with pytest.raises(InterruptedRunError, match=r"400 of 1,797"):
        build(tmp_path / "f", request_, first, quiet, stopped=stopped)
    build(tmp_path / "f", request_, rest, quiet)
    assert sum(rest.calls) == 1397


@pytest.mark.parametrize(
    ("changed", "word"),
    [
        ({"grid": 3}, "grid"),
        ({"scale": 0.2}, "scale"),
        ({"mean": None}, "mean_sha256"),
        ({"tf32": True}, "tf32"),
    ],
)
def test_a_folder_with_other_features_is_refused(
    tmp_path: Path, request_: FeatureRequest, quiet: Console, changed: dict[str, object], word: str
) -> None:
    build(tmp_path / "f", request_, Counting(), quiet)
    other = FeatureRequest(**{**vars(request_), **changed})
    with pytest.raises(DataError, match=f"other {word}"):
        build(tmp_path / "f", other, Counting(), quiet)


def test_features_that_do_not_say_what_they_depend_on_are_refused(
    tmp_path: Path, request_: FeatureRequest, quiet: Console
) -> None:
    build(tmp_path / "f", request_, Counting(), quiet)
    (tmp_path / "f" / "features.json").unlink()
    with pytest.raises(DataError, match=r"no features\.json that says .*--force"):
        build(tmp_path / "f", request_, Counting(), quiet)


def test_a_replacement_that_ends_halfway_leaves_the_old_features_under_their_own_settings(
    tmp_path: Path, request_: FeatureRequest, quiet: Console
) -> None:
    out, other = tmp_path / "f", FeatureRequest(**{**vars(request_), "scale": 0.2})
    build(out, request_, Counting(), quiet)
    old = checksums(out)
    with pytest.raises(EngineError):
        build(out, other, Counting(fails_at=4), quiet, force=True)
    next(out.glob(".parts/*/train-00000200-*")).write_bytes(b"damaged")
    with pytest.raises(DataError, match="damaged"):  # in the midst of writing the LMDBs
        build(out, other, Counting(), quiet, force=True)
    with pytest.raises(DataError, match="other scale"):
        build(out, other, Counting(), quiet)
    build(out, request_, again := Counting(), quiet)
    assert not again.calls
    assert checksums(out) == old


def test_settings_from_before_there_was_tf32_are_without_it(
    tmp_path: Path, request_: FeatureRequest, quiet: Console
) -> None:
    build(tmp_path / "f", request_, Counting(), quiet)
    settings = tmp_path / "f" / "features.json"
    old = json.loads(settings.read_text())
    del old["tf32"]
    settings.write_text(json.dumps(old))
    build(tmp_path / "f", request_, again := Counting(), quiet)
    assert not again.calls


@pytest.mark.parametrize("changed", [{"scale": 0.2}, {"tf32": True}])
def test_parts_of_other_features_are_not_taken(
    tmp_path: Path, request_: FeatureRequest, quiet: Console, changed: dict[str, object]
) -> None:
    with pytest.raises(EngineError):
        build(tmp_path / "f", request_, Counting(fails_at=4), quiet)
    other, engine = FeatureRequest(**{**vars(request_), **changed}), Counting()
    build(tmp_path / "f", other, engine, quiet)
    assert sum(engine.calls) == 1797


@pytest.mark.real_caffe
def test_the_data_layers_of_both_engines_read_them(
    tmp_path: Path, request_: FeatureRequest, quiet: Console, caffe_python: Path
) -> None:
    pytest.importorskip("torch")
    from pycaffe_prune.engines.prepare import prepare_evaluation
    from pycaffe_prune.engines.run_folder import RunFolder
    from pycaffe_prune.engines.torch.engine import TorchEngine

    build(tmp_path / "f", request_, Counting(), quiet)
    text = """
      layer { name: "d" type: "Data" top: "data" top: "label"
        data_param { source: "features_test_lmdb" batch_size: 50 backend: LMDB } }
      layer { name: "ip" type: "InnerProduct" bottom: "data" top: "ip"
        inner_product_param { num_output: 10 } }
      layer { name: "loss" type: "SoftmaxWithLoss" bottom: "ip" bottom: "label" top: "loss" }
      layer { name: "accuracy" type: "Accuracy" bottom: "ip" bottom: "label" top: "accuracy" }
    """
    (tmp_path / "judge.prototxt").write_text(text)
    random = np.random.default_rng(3)
    blobs = random.normal(size=(10, 8)).astype(np.float32), np.zeros(10, np.float32)
    layer = Layer(text_format.Parse(text, NetParameter()).layer[1], blobs)
    write_caffemodel(tmp_path / "ip.caffemodel", Caffemodel((layer,)))
    scores = []
    for engine in (CaffeEngine(caffe_python), TorchEngine()):
        folder = RunFolder(tmp_path / engine.name)
        folder.path.mkdir()
        job = prepare_evaluation(
            tmp_path / "judge.prototxt", [tmp_path / "ip.caffemodel"], tmp_path / "f", folder
        )
        scores += list(engine.evaluate(folder, job))
        engine.close()
    caffes, ours = scores
    assert caffes.images == ours.images == 297
    assert caffes.correct == ours.correct
    assert ours.loss == pytest.approx(caffes.loss, rel=1e-5)
