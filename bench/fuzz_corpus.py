"""A small honest file of each format that is read from strangers, with its reader."""

import gzip
import io
import json
import shutil
import struct
import tarfile
import zipfile
import zlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

import cv2
import h5py
import lmdb
import numpy as np
from fuzz_results import (
    draw_result,
    draw_sensitivity,
    repack_json,
    report_result,
    show_sensitivity,
    small_result,
    small_sensitivity,
)
from google.protobuf import text_format

from data_prep.idx import read_labelled_images
from data_prep.image_files import find_images
from data_prep.lmdb_writer import lmdb_content_checksum
from data_prep.manifest import load_manifest
from data_prep.mat_file import read_mat
from data_prep.warp import decode
from pycaffe_prune.engines.contents import lmdb_content
from pycaffe_prune.experiments.spec import find_experiment, read_experiment
from pycaffe_prune.formats import wire
from pycaffe_prune.formats.caffe_pb2 import Datum, LayerParameter, NetParameter
from pycaffe_prune.formats.caffemodel import (
    BlobKey,
    Caffemodel,
    Layer,
    read_caffemodel,
    write_caffemodel,
)
from pycaffe_prune.formats.compressed.blobs import Hash
from pycaffe_prune.formats.compressed.file import (
    MAGIC,
    compress,
    read_compressed,
    write_compressed,
    write_sections,
)
from pycaffe_prune.formats.datum import decode_datum, read_image
from pycaffe_prune.formats.hashed import hashed_blob
from pycaffe_prune.formats.hdf5 import (
    read_hdf5_solverstate,
    read_hdf5_weights,
    write_hdf5_weights,
)
from pycaffe_prune.formats.hdf5_files import read_rows
from pycaffe_prune.formats.lmdb_images import stored_images
from pycaffe_prune.formats.mask import MaskFile, read_mask, write_mask
from pycaffe_prune.formats.mean import read_mean, write_mean, write_mean_npy
from pycaffe_prune.formats.prototxt import read_net, read_solver
from pycaffe_prune.formats.solverstate import Solverstate, read_solverstate, write_solverstate
from pycaffe_prune.formats.sparse import read_sparse, write_sparse
from pycaffe_prune.formats.tensors import (
    read_npz,
    read_safetensors,
    write_npz,
    write_safetensors,
)
from pycaffe_prune.formats.weights import read_weights
from pycaffe_prune.net.shapes import infer_shapes

__all__ = ["Format", "make_formats"]

_NET = """name: "tiny"
layer { name: "data" type: "Input" top: "data"
  input_param { shape { dim: 1 dim: 1 dim: 6 dim: 6 } } }
layer { name: "conv" type: "Convolution" bottom: "data" top: "conv" param { lr_mult: 1 }
  convolution_param { num_output: 3 kernel_size: 3 weight_filler { type: "xavier" } } }
layer { name: "ip" type: "InnerProduct" bottom: "conv" top: "ip" include { phase: TEST }
  inner_product_param { num_output: 4 } } # the last
"""
_FORK = """layer { name: "perm" type: "Permute" bottom: "ip" permute_param { order: 1 order: 0 } }
"""
_V1_NET = """name: "old" input: "data" input_dim: 1 input_dim: 1 input_dim: 6 input_dim: 6
layers { name: "ip" type: INNER_PRODUCT bottom: "data" top: "ip" blobs_lr: 1 weight_decay: 1
  inner_product_param { num_output: 4 } }
"""
_V0_NET = """name: "older" input: "data" input_dim: 1 input_dim: 1 input_dim: 6 input_dim: 6
layers { layer { name: "p" type: "padding" pad: 2 } bottom: "data" top: "p" }
layers { layer { name: "c" type: "conv" num_output: 3 kernelsize: 3 } bottom: "p" top: "c" }
"""
_SOLVER = """net: "net.prototxt" test_iter: 2 test_interval: 5 base_lr: 0.01 lr_policy: "step"
gamma: 0.1 stepsize: 10 max_iter: 20 momentum: 0.9 snapshot_prefix: "a" solver_mode: CPU
type: "SGD"
"""


@dataclass(frozen=True)
class Format:
    """A file to begin with, and what reads what becomes of it."""

    name: str
    content: bytes
    file: str
    """The name that a mutated file has in its folder."""
    read: Callable[[Path], object]
    """Is given that file's path."""
    beside: Mapping[str, bytes]
    """Files that lie in the same folder, unharmed."""
    repack: Callable[[bytes, Callable[[bytes], bytes]], bytes] | None = None
    """Harms what is packed and packs it again, so that checksums hold."""
    is_slow: bool = False
    """Whether it takes 20 ms or more, a process of its own for instance: it is tried less often."""


def _model() -> Caffemodel:
    draws = np.random.default_rng(1)
    net = text_format.Parse(_NET, NetParameter())
    conv, weights = draws.standard_normal((3, 1, 3, 3)), draws.standard_normal((4, 48))
    weights[:, 2:40] = 0
    blobs = {"conv": (conv, np.ones(3)), "ip": (weights, np.zeros(4))}
    layers = tuple(
        Layer(layer, tuple(np.asarray(blob, np.float32) for blob in blobs.get(layer.name, ())))
        for layer in net.layer
    )
    return Caffemodel(layers, NetParameter(name="tiny"))


def _old_model(text: str) -> bytes:
    """An old caffemodel whose last layer has a blob in the shape of its time."""
    net = text_format.Parse(text, NetParameter())
    layer = net.layers[-1]
    target = layer.layer if layer.HasField("layer") else layer
    target.blobs.add(num=1, channels=1, height=3, width=4).data.extend(range(12))
    return net.SerializeToString()


def _hashed_model() -> tuple[Caffemodel, dict[BlobKey, Hash]]:
    """A model of one layer, and the hash that its weights are of."""
    layer = LayerParameter(name="ip", type="InnerProduct")
    blob = hashed_blob(np.arange(1, 8, dtype=np.float32), (5, 6), 3)
    return Caffemodel((Layer(layer, (blob,)),)), {("ip", 0): Hash(7, 3)}


def _solverstate_h5(path: Path) -> None:
    with h5py.File(path, "w") as file:
        file["iter"], file["current_step"] = np.int32(7), np.int32(1)
        file["learned_net"] = np.bytes_(b"a.caffemodel.h5")
        file["history/0"] = np.ones((3, 4), np.float32)
        file["history/1"] = np.ones(3, np.float32)


def _rows_h5(path: Path) -> None:
    with h5py.File(path, "w") as file:
        file.create_dataset("data", data=np.ones((8, 5)), chunks=(2, 5), compression="gzip")
        file["label"] = np.arange(8)


def _mat() -> bytes:
    """Three matrices as MATLAB writes them: two packed, one plain."""

    def element(kind: int, content: bytes) -> bytes:
        pad = b"" if kind == 15 else bytes(-len(content) % 8)
        return struct.pack("<II", kind, len(content)) + content + pad

    def matrix(name: bytes, values: np.ndarray) -> bytes:
        head = element(6, struct.pack("<II", 6, 0)) + element(5, struct.pack("<ii", *values.shape))
        return element(14, head + element(1, name) + element(4, values.astype("<u2").tobytes()))

    rows = {name: np.arange(1, 30)[None] for name in (b"labels", b"trnid", b"tstid")}
    first, *others = (matrix(name, values) for name, values in rows.items())
    packed = (element(15, zlib.compress(other)) for other in others)
    return b"MATLAB 5.0 MAT-file".ljust(124) + b"\0\1IM" + first + b"".join(packed)


def _tar(mode: str) -> bytes:
    stream = io.BytesIO()
    with tarfile.open(fileobj=stream, mode=mode) as archive:
        for number in (1, 2):
            info = tarfile.TarInfo(f"jpg/image_0000{number}.jpg")
            content = _image(".jpg")
            info.size = len(content)
            archive.addfile(info, io.BytesIO(content))
    return stream.getvalue()


def _image(ending: str) -> bytes:
    pixels = np.random.default_rng(2).integers(0, 256, (9, 7, 3), np.uint8)
    return bytes(cv2.imencode(ending, pixels)[1].tobytes())


def _datum(kind: str) -> bytes:
    shape = {"channels": 3, "height": 2, "width": 2}
    if kind == "encoded":
        return Datum(data=_image(".jpg"), label=1, encoded=True).SerializeToString()
    if kind == "floats":
        return Datum(**shape, label=2, float_data=range(12)).SerializeToString()
    return Datum(**shape, label=3, data=bytes(range(12))).SerializeToString()


def _lmdb(folder: Path) -> None:
    options = {"lib_version": 0} if hasattr(lmdb.Environment, "lib_version") else {}
    with (
        lmdb.open(str(folder), map_size=2**22, lock=False, **options) as environment,
        environment.begin(write=True) as transaction,
    ):
        for number in range(60):
            kind = ("raw", "floats", "encoded")[number % 3]
            transaction.put(b"%08d" % number, _datum(kind))
        large = Datum(channels=3, height=50, width=50, data=bytes(7500))
        transaction.put(b"large", large.SerializeToString())


def _idx() -> tuple[bytes, bytes]:
    images = struct.pack(">IIII", 0x803, 5, 4, 3) + bytes(range(60))
    return images, struct.pack(">II", 0x801, 5) + bytes(5)


def _read_idx(path: Path) -> object:
    return read_labelled_images(path, path.with_name("labels"))


def _read_archive(path: Path) -> object:
    scratch = path.with_name("scratch")
    try:
        return [file.read() for file in find_images(path, scratch).values()]
    finally:
        scratch.unlink(missing_ok=True)


def _read_lmdb(path: Path) -> object:
    folder = path.parent
    for notes in folder.glob("*.json"):
        notes.unlink()
    lmdb_content_checksum(folder)
    lmdb_content(folder)
    return list(stored_images(folder, 3))


def _read_record(path: Path) -> object:
    return decode_datum(path.read_bytes(), "record")


def _read_decoded(path: Path) -> object:
    read_image(path)
    return decode(path.read_bytes())


def _read_rows(path: Path) -> object:
    return read_rows(path, ("data", "label"))


def _read_shapes(path: Path) -> object:
    return infer_shapes(read_net(path).layer, {})


def _read_manifest(path: Path) -> object:
    return load_manifest(path.parent)


def _repack_zip(content: bytes, harm: Callable[[bytes], bytes]) -> bytes:
    with zipfile.ZipFile(io.BytesIO(content)) as archive:
        members = {name: archive.read(name) for name in archive.namelist()}
    chosen = sorted(members)[len(harm(b"0" * 64)) % len(members)]
    members[chosen] = harm(members[chosen])
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, member in members.items():
            archive.writestr(name, member)
    return stream.getvalue()


def _repack_gzip(content: bytes, harm: Callable[[bytes], bytes]) -> bytes:
    return gzip.compress(harm(gzip.decompress(content)), 1)


def _repack_safetensors(content: bytes, harm: Callable[[bytes], bytes]) -> bytes:
    length = int.from_bytes(content[:8], "little")
    header = harm(content[8 : 8 + length])
    return len(header).to_bytes(8, "little") + header + content[8 + length :]


def _repack_compressed(content: bytes, harm: Callable[[bytes], bytes]) -> bytes:
    """Harm one section, and give it the length and checksum that it then has."""
    sections, at = [], len(MAGIC) + 1
    while at < len(content):
        size, at = wire.read_varint(memoryview(content), at, len(content))
        sections.append(content[at + 4 : at + 4 + size])
        at += 4 + size
    chosen = len(harm(b"0" * 64)) % len(sections)
    sections[chosen] = harm(sections[chosen])
    return content[: len(MAGIC) + 1] + b"".join(
        wire.encode_varint(len(section)) + struct.pack("<I", zlib.crc32(section)) + section
        for section in sections
    )


def _written(folder: Path, write: Callable[[Path], object]) -> bytes:
    path = folder / "made"
    write(path)
    return path.read_bytes()


def make_formats(folder: Path) -> list[Format]:
    """Return all formats; ``folder`` is used for scratch files."""
    model, (images, labels) = _model(), _idx()
    mask = MaskFile({("ip", 0): np.eye(4, 48, dtype=bool)}, "0" * 64, "threshold", {"alpha": 1})
    mean = np.ones((3, 4, 5), np.float32)
    state = Solverstate(7, "a.caffemodel", (np.ones((3, 4), np.float32),), 1)

    def made(write: Callable[[Path], object]) -> bytes:
        return _written(folder, write)

    _lmdb(folder / "lmdb")
    records = (folder / "lmdb/data.mdb").read_bytes()
    shutil.rmtree(folder / "lmdb")
    split = {
        "lmdb": "l",
        "count": 1,
        "label_histogram": [1],
        "shape": [1, 2, 3],
        "sha256": "0" * 64,
    }
    manifest = {
        "schema_version": 1, "name": "mnist", "source": "s", "is_sample": False, "mean": "m",
        "splits": {"train": split, "test": split}, "mean_sha256": "0" * 64, "created_by": "c",
    }  # fmt: skip
    solverstate = made(lambda path: write_solverstate(path, state))
    experiment = find_experiment("lenet-300-100", "quick").read_bytes()
    caffemodel = made(lambda path: write_caffemodel(path, model))
    hdf5 = made(lambda path: write_hdf5_weights(path, model))
    npz = made(lambda path: write_npz(path, model))
    sparse = made(lambda path: write_sparse(path, model))
    result, found = small_result(), small_sensitivity()
    compressed = made(lambda path: write_compressed(path, model))
    hashed = made(lambda path: write_sections(path, compress(*_hashed_model())))
    tensors = made(lambda path: write_safetensors(path, model))
    return [
        *(
            Format(f"{age} prototxt", text.encode(), "a.prototxt", read_net, {})
            for age, text in (("net", _NET + _FORK), ("V1 net", _V1_NET), ("V0 net", _V0_NET))
        ),
        Format("shapes of a net", _NET.encode(), "a.prototxt", _read_shapes, {}),
        Format("experiment TOML", experiment, "a.toml", read_experiment, {}),
        Format("solver prototxt", _SOLVER.encode(), "a.prototxt", read_solver, {}),
        Format("caffemodel", caffemodel, "a.caffemodel", read_caffemodel, {}),
        *(
            Format(f"{age} caffemodel", _old_model(text), "a.caffemodel", read_caffemodel, {})
            for age, text in (("V1", _V1_NET), ("V0", _V0_NET))
        ),
        Format("solverstate", solverstate, "a", read_solverstate, {}),
        Format("sparse npz", sparse, "a.npz", read_sparse, {}, _repack_zip),
        *(
            Format(kind, content, "a.cpz", read_compressed, {}, _repack_compressed)
            for kind, content in (("compressed", compressed), ("compressed, hashed", hashed))
        ),
        Format("npz", npz, "a.npz", read_npz, {}, _repack_zip),
        Format("safetensors", tensors, "a", read_safetensors, {}, _repack_safetensors),
        *(
            Format(f"weights by content ({kind})", content, "a", read_weights, {}, repack)
            for kind, content, repack in (
                ("caffemodel", caffemodel, None),
                ("npz", sparse, _repack_zip),
                ("safetensors", tensors, _repack_safetensors),
                ("compressed", compressed, _repack_compressed),
            )
        ),
        Format("mean binaryproto", made(lambda p: write_mean(p, mean)), "a", read_mean, {}),
        Format("mean npy", made(lambda p: write_mean_npy(p, mean)), "a", read_mean, {}),
        Format("IDX", images, "images", _read_idx, {"labels": labels}),
        Format("IDX gzip", gzip.compress(images), "i", _read_idx, {"labels": labels}, _repack_gzip),
        Format("MATLAB", _mat(), "a.mat", read_mat, {}),
        Format("tar of images", _tar("w"), "a.tar", _read_archive, {}),
        Format("tgz of images", _tar("w:gz"), "a.tgz", _read_archive, {}, _repack_gzip),
        Format("LMDB", records, "data.mdb", _read_lmdb, {}),
        *(
            Format(f"Datum ({kind})", _datum(kind), "a", _read_record, {})
            for kind in ("raw", "floats", "encoded")
        ),
        *(
            Format(f"image ({ending[1:]})", _image(ending), f"a{ending}", _read_decoded, {})
            for ending in (".jpg", ".png", ".bmp", ".webp", ".tiff")
        ),
        Format("manifest", json.dumps(manifest).encode(), "manifest.json", _read_manifest, {}),
        Format("report of a result", result, "result.json", report_result, {}, repack_json, True),
        Format("figure of a result", result, "result.json", draw_result, {}, repack_json, True),
        *(
            Format(
                f"{what} of sensitivities", found, "sensitivity.json", read, {}, repack_json, True
            )
            for what, read in (("table", show_sensitivity), ("figure", draw_sensitivity))
        ),
        *(
            Format(f"{what} HDF5", content, "a.h5", read, {}, None, True)
            for what, content, read in (
                ("mask", made(lambda p: write_mask(p, mask)), read_mask),
                ("weights", hdf5, read_hdf5_weights),
                ("solverstate", made(_solverstate_h5), read_hdf5_solverstate),
                ("data", made(_rows_h5), _read_rows),
            )
        ),
    ]
