"""How much memory each reader takes, for large honest files and for those that were made to harm.

    python bench/reader_memory.py

Each file is read in a process of its own; what its memory grows by at most counts, or that of the
child in which HDF5 is parsed, where that is more. Honest files have 64 MB of values (masks 16 MB)
that do not pack; the others are those of `tests/cases/hostile` and some that are made here. At most
three times the file's size is right, or of its values where they are packed; and 1 GiB.
"""

import gzip
import io
import os
import resource
import struct
import sys
import tarfile
import tempfile
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path

import h5py
import numpy as np

from data_prep.idx import read_labelled_images
from data_prep.image_files import find_images
from data_prep.mat_file import read_mat
from pycaffe_prune.errors import PruneError
from pycaffe_prune.formats.caffe_pb2 import LayerParameter
from pycaffe_prune.formats.caffemodel import Caffemodel, Layer, write_caffemodel
from pycaffe_prune.formats.hdf5 import read_hdf5_solverstate, write_hdf5_weights
from pycaffe_prune.formats.hdf5_files import read_rows
from pycaffe_prune.formats.mask import MaskFile, read_mask, write_mask
from pycaffe_prune.formats.mean import read_mean, write_mean, write_mean_npy
from pycaffe_prune.formats.solverstate import Solverstate, read_solverstate, write_solverstate
from pycaffe_prune.formats.sparse import write_sparse
from pycaffe_prune.formats.tensors import write_npz, write_safetensors
from pycaffe_prune.formats.weights import read_weights

HOSTILE = Path(__file__).resolve().parent.parent / "tests/cases/hostile"
MOST_TIMES, MOST_BYTES = 3, 1 << 30
VALUES = 16_000_000

Read = Callable[[Path], object]


def _rows(path: Path) -> object:
    return read_rows(path, ("data",))


def _idx(path: Path) -> object:
    return read_labelled_images(path, path.with_name("labels"))


def _images(path: Path) -> object:
    scratch = path.with_name("scratch")
    try:
        return [file.size for file in find_images(path, scratch).values()]
    finally:
        scratch.unlink(missing_ok=True)


def honest(folder: Path) -> Iterator[tuple[Path, Read]]:
    """Write a large file of each format."""
    values = np.random.default_rng(1).standard_normal((4_000, VALUES // 4_000), np.float32)
    model = Caffemodel((Layer(LayerParameter(name="ip", type="InnerProduct"), (values,)),))
    mask = MaskFile({("ip", 0): values > 0}, "0" * 64, "threshold")
    state = Solverstate(7, "a.caffemodel", (values,), 1)
    writers: dict[str, tuple[Callable[[Path], object], Read]] = {
        "a.caffemodel": (lambda path: write_caffemodel(path, model), read_weights),
        "a.caffemodel.h5": (lambda path: write_hdf5_weights(path, model), read_weights),
        "a.npz": (lambda path: write_npz(path, model), read_weights),
        "a.sparse.npz": (lambda path: write_sparse(path, model), read_weights),
        "a.safetensors": (lambda path: write_safetensors(path, model), read_weights),
        "a.mask.h5": (lambda path: write_mask(path, mask), read_mask),
        "a.solverstate": (lambda path: write_solverstate(path, state), read_solverstate),
        "mean.binaryproto": (lambda path: write_mean(path, values[None]), read_mean),
        "mean.npy": (lambda path: write_mean_npy(path, values[None]), read_mean),
        "data.h5": (lambda path: _write_rows(path, values), _rows),
        "images-idx3": (lambda path: _write_idx(path, values), _idx),
    }
    for name, (write, read) in writers.items():
        write(folder / name)
        yield folder / name, read


def _write_rows(path: Path, values: np.ndarray) -> None:
    with h5py.File(path, "w") as file:
        file.create_dataset("data", data=values, chunks=(100, 1000), compression="gzip")


def _write_idx(path: Path, values: np.ndarray) -> None:
    content = values.tobytes()
    images = len(content) // 784
    path.write_bytes(struct.pack(">IIII", 0x803, images, 28, 28) + content[: 784 * images])
    path.with_name("labels").write_bytes(struct.pack(">II", 0x801, images) + bytes(images))


def harmful(folder: Path) -> Iterator[tuple[Path, Read]]:
    """Give the files that were made to harm."""
    for path in sorted((HOSTILE / "bombs").glob("*.*")):
        if path.is_file():
            is_state = ".solverstate" in path.name
            read = read_mask if ".mask." in path.name else read_weights
            yield path, read_hdf5_solverstate if is_state else read
    for path in sorted((HOSTILE / "fuzz").glob("*")):
        readers = {".h5": read_mask, ".mat": read_mat, ".npz": read_weights}
        if path.suffix in readers:
            yield path, readers[path.suffix]
    yield _bomb_in_gzip(folder / "bomb.gz"), _idx
    yield _bomb_in_tgz(folder / "bomb.tgz"), _images
    yield _bomb_in_npz(folder / "bomb.npz"), read_weights


def _bomb_in_gzip(path: Path) -> Path:
    path.with_name("labels").write_bytes(struct.pack(">II", 0x801, 1) + b"\1")
    with gzip.open(path, "wb", 1) as file:
        file.write(struct.pack(">IIII", 0x803, 1 << 20, 28, 28))
        for _ in range(1024):
            file.write(bytes(1 << 20))
    return path


def _bomb_in_tgz(path: Path) -> Path:
    with tarfile.open(path, "w:gz", compresslevel=1) as archive:
        info = tarfile.TarInfo("jpg/image_00001.jpg")
        info.size = 2 << 30
        archive.addfile(info, _Zeros())  # type: ignore[arg-type]
    return path


class _Zeros(io.RawIOBase):
    """Zeros without end."""

    def read(self, size: int = -1) -> bytes:
        return bytes(size)


def _bomb_in_npz(path: Path) -> Path:
    head = io.BytesIO()
    np.lib.format.write_array_header_1_0(
        head, {"descr": "<f4", "fortran_order": False, "shape": (1 << 29,)}
    )
    with (
        zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED, compresslevel=1) as archive,
        archive.open("ip/0.npy", "w", force_zip64=True) as file,
    ):
        file.write(head.getvalue())
        for _ in range(2048):
            file.write(bytes(1 << 20))
    return path


def growth(path: Path, read: Read) -> tuple[int, str]:
    """Return by how many bytes a process grows that reads a file, and what came of it."""
    ours, theirs = os.pipe()
    if os.fork() == 0:
        try:
            before = _peak(resource.RUSAGE_SELF)
            told = "read"
            try:
                kept = read(path)
                del kept
            except PruneError as error:
                told = f"refused: {error}"
            own = _peak(resource.RUSAGE_SELF) - before
            child = max(0, _peak(resource.RUSAGE_CHILDREN) - before)
            os.write(theirs, f"{max(own, child)} {told}".encode()[:4000])
        finally:
            os._exit(0)
    os.close(theirs)
    with os.fdopen(ours) as said:
        grown, _, told = said.read().partition(" ")
    os.wait()
    return int(grown), told


def _peak(who: int) -> int:
    return 1024 * resource.getrusage(who).ru_maxrss


def main() -> None:
    """Print a table; fail where a reader takes more than it may."""
    bad = 0
    print("| file | size, MB | memory, MB | times its values | |")
    print("|---|---|---|---|---|")
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        for files in (honest, harmful):
            for path, read in files(folder):
                size = path.stat().st_size
                grown, told = growth(path, read)
                held = max(size, VALUES if ".mask." in path.name else 4 * VALUES)
                times = f"{grown / held:.1f}" if files is honest else ""
                bad += grown > (MOST_TIMES * held if files is honest else MOST_BYTES)
                print(
                    f"| {path.name} | {size / 1e6:.3g} | {grown / 1e6:.0f} | {times} "
                    f"| {told.partition(':')[0]} |", flush=True,
                )  # fmt: skip
                if path.is_relative_to(folder):
                    path.unlink()
    sys.exit(1 if bad else 0)


if __name__ == "__main__":
    main()
