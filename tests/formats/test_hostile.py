"""Files that were made to harm: each costs one sentence, little memory and little time."""

import multiprocessing
import os
import re
import resource
from collections.abc import Callable, Iterator
from concurrent.futures import Executor, ProcessPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import h5py
import numpy as np
import pytest

from pycaffe_prune.errors import FormatError
from pycaffe_prune.formats.hdf5 import read_hdf5_solverstate, read_hdf5_weights
from pycaffe_prune.formats.limits import LIMIT_VARIABLE
from pycaffe_prune.formats.mask import MaskFile, read_mask, write_mask
from pycaffe_prune.formats.weights import read_weights

HOSTILE = Path(__file__).parents[1] / "cases/hostile"
_MOST_MEMORY = 800 << 20  # the limit of what a file may unpack to, and a little
_MOST_SECONDS = 5


@dataclass(frozen=True)
class Cost:
    """What a reader said of a file, and what that took."""

    refusal: str
    seconds: float
    peak: int
    """Bytes: the most that the process has held so far, or a child of it."""


def refuse(read: Callable[[Path], object], path: Path) -> Cost:
    began = _cpu_seconds()
    try:
        read(path)
    except FormatError as error:
        return Cost(str(error), _cpu_seconds() - began, _most_held())
    raise AssertionError(f"{path} was read")


def _most_held() -> int:
    # Not RUSAGE_SELF: a started program keeps in it what its parent held when it was forked.
    status = Path("/proc/self/status").read_text()
    own = int(re.findall(r"^VmHWM:\s+(\d+) kB$", status, re.MULTILINE)[0])
    return 1024 * max(own, resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss)


def _cpu_seconds() -> float:
    spent = os.times()
    return spent.user + spent.system + spent.children_user + spent.children_system


@pytest.fixture(scope="module")
def fresh_process() -> Iterator[Executor]:
    """A process that has read nothing else: what it held at most is what these files cost."""
    with ProcessPoolExecutor(1, multiprocessing.get_context("spawn")) as executor:
        yield executor


@pytest.mark.parametrize(
    ("name", "read", "words"),
    [
        ("bombs/bomb.mask.h5", read_mask, "its values are not there"),
        ("bombs/cyclic.mask.h5", read_mask, "nested too deep"),
        ("bombs/external.mask.h5", read_mask, "has its values in another file"),
        ("bombs/empty.caffemodel.h5", read_hdf5_weights, "its values are not there"),
        ("bombs/soft.caffemodel.h5", read_hdf5_weights, "link to another place"),
        ("bombs/links.caffemodel.h5", read_hdf5_weights, "link to another place"),
        ("bombs/inf.solverstate.h5", read_hdf5_solverstate, "which is no count"),
        ("bombs/bomb.sparse.npz", read_weights, "unpacks to more than 768 MiB"),
        ("bombs/pickled.npz", read_weights, "holds no plain numbers"),
        ("bombs/lie1.safetensors", read_weights, "bytes of data|overlap or leave gaps|bytes"),
        ("bombs/lie2.safetensors", read_weights, "overlap or leave gaps|but .* bytes"),
        ("bombs/huge.caffemodel", read_weights, "has shape 1048576x1048576 but holds 0"),
        ("bombs/lie.caffemodel", read_weights, "truncated or damaged"),
        ("fuzz/mask-segv-k.mask.h5", read_mask, "cannot be read|takes too long"),
        ("fuzz/mask-hang1-k.mask.h5", read_mask, "takes too long|cannot be read"),
        ("fuzz/zipversion-w.sparse.npz", read_weights, "cannot be read"),
    ],
)
def test_a_hostile_file_costs_one_sentence(
    fresh_process: Executor, name: str, read: Callable[[Path], object], words: str
) -> None:
    path = HOSTILE / name
    cost = fresh_process.submit(refuse, read, path).result()
    assert re.match(f"{re.escape(str(path))}: .*({words})", cost.refusal)
    assert "\n" not in cost.refusal
    assert cost.seconds < _MOST_SECONDS
    assert cost.peak <= _MOST_MEMORY


@pytest.mark.parametrize("name", ["bf16", "f8"])
def test_narrow_floats_are_read(name: str) -> None:
    model = read_weights(HOSTILE / f"bombs/{name}.safetensors")
    assert all(blob.dtype == np.float32 and blob.size for _, blob in model.blobs())


def test_plain_weights_are_mapped_and_not_copied(tmp_path: Path) -> None:
    with h5py.File(tmp_path / "a.h5", "w", userblock_size=512) as file:
        file["data/ip/0"] = np.arange(12, dtype="<f4").reshape(3, 4)
        file["data/ip/1"] = np.arange(3, dtype=">f4")
    weight, bias = read_hdf5_weights(tmp_path / "a.h5").layer("ip").blobs
    np.testing.assert_array_equal(weight, np.arange(12).reshape(3, 4))
    np.testing.assert_array_equal(bias, np.arange(3))
    assert not weight.flags.writeable


def test_the_limit_can_be_set(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    path = tmp_path / "a.mask.h5"
    masks = {("ip", 0): np.zeros((1 << 11, 1 << 10), np.bool_)}
    write_mask(path, MaskFile(masks, "0" * 64, "threshold"))
    monkeypatch.setenv(LIMIT_VARIABLE, "1")
    with pytest.raises(FormatError, match=f"more than 1 MiB; .* set {LIMIT_VARIABLE} to more"):
        read_mask(path)
    monkeypatch.setenv(LIMIT_VARIABLE, "2")
    assert read_mask(path).masks["ip", 0].nbytes == 2 << 20
    monkeypatch.setenv(LIMIT_VARIABLE, "much")
    with pytest.raises(FormatError, match=f"{LIMIT_VARIABLE} is 'much'; give a number of MiB"):
        read_mask(path)


def test_a_mask_that_is_linked_twice_is_refused_and_weights_count_twice(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    mask, weights = tmp_path / "a.mask.h5", tmp_path / "a.h5"
    write_mask(mask, MaskFile({("ip", 0): np.ones((4, 4), np.bool_)}, "0" * 64, "threshold"))
    with h5py.File(mask, "r+") as file:
        file["other/0"] = file["ip/0"]
    with pytest.raises(FormatError, match="'/other/0' is another one under a second name"):
        read_mask(mask)
    with h5py.File(weights, "w") as file:
        file["data/a/0"] = np.ones(100_000, np.float32)
        for name in "bc":
            file[f"data/{name}/0"] = file["data/a/0"]
    blobs = dict(read_hdf5_weights(weights).blobs())
    assert np.shares_memory(blobs["a", 0], blobs["c", 0])
    monkeypatch.setenv(LIMIT_VARIABLE, "1")
    with pytest.raises(FormatError, match="unpacks to more than 1 MiB"):
        read_hdf5_weights(weights)
