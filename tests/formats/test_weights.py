import random
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from pycaffe_prune.errors import FormatError
from pycaffe_prune.formats.caffe_pb2 import LayerParameter, NetParameter, V1LayerParameter
from pycaffe_prune.formats.caffemodel import Caffemodel, Layer
from pycaffe_prune.formats.weights import read_weights, write_weights

ENDINGS = [".caffemodel", ".h5", ".caffemodel.h5", ".sparse.npz", ".npz", ".safetensors", ".cpz"]


def small_model() -> Caffemodel:
    weights = np.zeros((30, 20), np.float32)
    weights[::3, 4] = 2
    param = LayerParameter(name="ip1", type="InnerProduct")
    layer = Layer(param, (weights, np.arange(30, dtype=np.float32)))
    return Caffemodel((layer,), NetParameter(name="small"))


@pytest.mark.parametrize("ending", ENDINGS)
def test_each_form_is_written_by_its_ending_and_read_by_its_content(
    tmp_path: Path, ending: str
) -> None:
    write_weights(tmp_path / f"model{ending}", small_model())
    (tmp_path / f"model{ending}").rename(tmp_path / "any name")
    found = read_weights(tmp_path / "any name")
    for (key, blob), (expected_key, expected) in zip(
        found.blobs(), small_model().blobs(), strict=True
    ):
        assert key == expected_key
        assert blob.shape == expected.shape
        assert blob.tobytes() == expected.tobytes()


def test_the_forms_differ(tmp_path: Path) -> None:
    contents = set()
    for ending in (".caffemodel", ".h5", ".sparse.npz", ".npz", ".safetensors", ".cpz"):
        write_weights(tmp_path / f"model{ending}", small_model())
        contents.add((tmp_path / f"model{ending}").read_bytes())
    assert len(contents) == 6


def test_a_v1_file_is_told_from_its_content(tmp_path: Path) -> None:
    old = NetParameter(layers=[V1LayerParameter(name="ip1", type=V1LayerParameter.INNER_PRODUCT)])
    (tmp_path / "old").write_bytes(old.SerializeToString())
    assert [layer.name for layer in read_weights(tmp_path / "old").layers] == ["ip1"]


@pytest.mark.parametrize("name", ["model", "model.onnx", "model.caffemodel.txt", "h5"])
def test_an_ending_of_no_form_is_refused_with_those_that_there_are(
    tmp_path: Path, name: str
) -> None:
    sentence = r"its ending tells no form of weights; a \.caffemodel, .* is needed$"
    with pytest.raises(FormatError, match=f"^{tmp_path}/{name}: {sentence}"):
        write_weights(tmp_path / name, small_model())
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    "content",
    [b"name: 'text'", b"\x89PNG\r\n\x1a\n", bytes(16), b"\x93NUMPY\x01\x00"],
)
def test_unknown_content_is_refused_with_the_forms_that_there_are(
    tmp_path: Path, content: bytes
) -> None:
    path = tmp_path / "model.caffemodel"
    path.write_bytes(content)
    with pytest.raises(FormatError, match=rf"^{path}: begins like no .*; a \.caffemodel, .* is ne"):
        read_weights(path)


def test_missing_and_empty_files_are_named(tmp_path: Path) -> None:
    (tmp_path / "empty").write_bytes(b"")
    for name, reason in (("none", "no such file"), ("empty", "is empty"), (".", "is a folder")):
        with pytest.raises(FormatError, match=f"{reason}; a .caffemodel, .* is needed$"):
            read_weights(tmp_path / name)


@pytest.mark.parametrize("cut", [4, 9, 40])
@pytest.mark.parametrize("ending", ENDINGS)
def test_a_file_cut_short_is_refused_by_its_name(tmp_path: Path, ending: str, cut: int) -> None:
    path = tmp_path / f"model{ending}"
    write_weights(path, small_model())
    path.write_bytes(path.read_bytes()[:cut])
    with pytest.raises(FormatError, match=f"^{path}: .* is needed$"):
        read_weights(path)


def test_any_bytes_are_read_or_refused(tmp_path: Path) -> None:
    pick = random.Random(2)  # noqa: S311 -- no secret
    starts: list[Callable[[], bytes]] = [
        lambda: b"\x89HDF\r\n\x1a\n",
        lambda: b"PK\x03\x04",
        lambda: pick.randrange(100).to_bytes(8, "little") + b"{",
        lambda: b"\x0a\x03abc\xa2\x06",
        lambda: b"",
    ]
    for number in range(500):
        content = starts[number % 5]() + pick.randbytes(pick.randint(1, 200))
        (tmp_path / "any").write_bytes(content)
        try:
            read_weights(tmp_path / "any")
        except FormatError as error:
            sentence = str(error)
        else:
            sentence = str(tmp_path / "any")
        assert sentence.startswith(str(tmp_path / "any"))
