from pathlib import Path

import cv2
import h5py
import numpy as np
import pytest
from google.protobuf import text_format
from google.protobuf.descriptor import FieldDescriptor

from pycaffe_prune.engines.data_paths import DataFolder
from pycaffe_prune.engines.fingerprint import net_fingerprint
from pycaffe_prune.engines.net_data import resolve_lists
from pycaffe_prune.engines.net_files import FILE_FIELDS, net_files, refuse_files
from pycaffe_prune.engines.readable import Readable
from pycaffe_prune.errors import DataError, FormatError
from pycaffe_prune.formats.caffe_pb2 import LayerParameter, NetParameter

NOT_READ = {
    ("hdf5_output_param", "file_name"),  # written
    # Of old prototxts; `formats.upgrade` moves them to transform_param.
    ("data_param", "mean_file"),
    ("image_data_param", "mean_file"),
    ("window_data_param", "mean_file"),
    # Begin the paths that a list names.
    ("image_data_param", "root_folder"),
    ("window_data_param", "root_folder"),
}


def test_every_field_of_a_layer_that_names_a_file_is_known() -> None:
    named = {
        (message.name, field.name)
        for message in LayerParameter.DESCRIPTOR.fields
        if message.message_type is not None
        for field in message.message_type.fields
        if field.type == FieldDescriptor.TYPE_STRING
        and any(part in field.name for part in ("file", "source", "folder", "path"))
    }
    assert named == FILE_FIELDS | NOT_READ


LAYERS = {
    "images": """layer { name: "data" type: "ImageData" top: "data" top: "label"
        image_data_param { source: "images.txt" root_folder: "imgs/" batch_size: 1 } }""",
    "hdf5": """layer { name: "data" type: "HDF5Data" top: "data" top: "label"
        hdf5_data_param { source: "hdf5.txt" batch_size: 1 } }""",
    "windows": """layer { name: "data" type: "WindowData" top: "data" top: "label"
        window_data_param { source: "windows.txt" root_folder: "imgs/" batch_size: 1 } }""",
    "gains": """layer { name: "loss" type: "InfogainLoss" bottom: "p" bottom: "label" top: "loss"
        infogain_loss_param { source: "gains.binaryproto" } }""",
}
READ = {
    "images": "imgs/a.png",
    "hdf5": "a.h5",
    "windows": "imgs/b.png",
    "gains": "gains.binaryproto",
}


def write_files(folder: Path) -> Path:
    (folder / "imgs").mkdir(parents=True)
    for number, name in enumerate("ab"):
        cv2.imwrite(str(folder / "imgs" / f"{name}.png"), np.full((4, 4, 3), number, np.uint8))
    (folder / "images.txt").write_text("a.png 3\nb.png 1\n")
    with h5py.File(folder / "a.h5", "w") as file:
        file["data"] = np.zeros((2, 3))
    (folder / "hdf5.txt").write_text(f"{folder / 'a.h5'}\n")
    (folder / "windows.txt").write_text(
        "# 0\na.png\n3\n4\n4\n1\n1 0.9 0 0 3 3\n# 1\nb.png\n3\n4\n4\n0\n"
    )
    (folder / "gains.binaryproto").write_bytes(b"gains")
    return folder


def data_folder(folder: Path) -> DataFolder:
    return DataFolder(folder, Readable.of(folder / "net.prototxt", folder, trust=False))


def fingerprint(kind: str, folder: Path) -> str:
    net = text_format.Parse(LAYERS[kind], NetParameter())
    resolve_lists(net, folder / "net.prototxt", data_folder(folder))
    return net_fingerprint(net, net_files(net))


@pytest.mark.parametrize("kind", LAYERS)
def test_a_copy_elsewhere_is_the_same_and_another_content_is_not(kind: str, tmp_path: Path) -> None:
    one, other = write_files(tmp_path / "one"), write_files(tmp_path / "other")
    assert fingerprint(kind, one) == fingerprint(kind, other)
    with (other / READ[kind]).open("ab") as file:
        file.write(b"more")
    assert fingerprint(kind, one) != fingerprint(kind, other)


@pytest.mark.parametrize(
    ("kind", "list_name", "old", "new"),
    [
        ("images", "images.txt", "a.png 3", "a.png 2"),
        ("images", "images.txt", "a.png 3\nb.png 1", "b.png 1\na.png 3"),
        ("windows", "windows.txt", "0.9", "0.8"),
        ("windows", "windows.txt", "b.png", "a.png"),
    ],
)
def test_what_a_list_says_of_its_files_counts(
    kind: str, list_name: str, old: str, new: str, tmp_path: Path
) -> None:
    folder = write_files(tmp_path / "data")
    before = fingerprint(kind, folder)
    source = folder / list_name
    source.write_text(source.read_text().replace(old, new))
    assert fingerprint(kind, folder) != before


def test_labels_of_a_list_are_known(tmp_path: Path) -> None:
    net = text_format.Parse(LAYERS["images"], NetParameter())
    folder = data_folder(write_files(tmp_path / "data"))
    resolve_lists(net, tmp_path / "net.prototxt", folder)
    (file,) = net_files(net)
    assert (file.content.records, file.content.labels) == (2, (1, 3))


def test_a_missing_image_is_named_with_its_list(tmp_path: Path) -> None:
    folder = write_files(tmp_path / "data")
    (folder / "imgs" / "b.png").unlink()
    with pytest.raises(DataError, match=r"images\.txt: names the file .*b\.png"):
        fingerprint("images", folder)


def test_a_third_bottom_takes_the_place_of_the_infogain_matrix(tmp_path: Path) -> None:
    net = text_format.Parse(LAYERS["gains"], NetParameter())
    net.layer[0].bottom.append("gains")
    assert net_files(net) == []


@pytest.mark.parametrize("kind", LAYERS)
def test_where_a_net_has_nothing_read_a_layer_that_would_is_named(kind: str) -> None:
    net = text_format.Parse(LAYERS[kind], NetParameter())
    with pytest.raises(FormatError, match=rf"^a: layer '{net.layer[0].name}' \(.*reads .*--trust"):
        refuse_files(net, Path("a"))
    net.layer[0].CopyFrom(LayerParameter(name="r", type="ReLU"))
    refuse_files(net, Path("a"))
