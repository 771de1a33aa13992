import gzip
import shutil
from collections.abc import Callable
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread

import lmdb
import numpy as np
import pytest
from numpy.typing import NDArray
from rich.console import Console

from data_prep.idx import parse_idx, read_unpacked
from data_prep.lmdb_writer import lmdb_content_checksum
from data_prep.manifest import verify_manifest
from data_prep.mnist import build_mnist
from pycaffe_prune.errors import DataError
from pycaffe_prune.formats.caffe_pb2 import BlobProto, Datum

Small = tuple[Path, dict[str, tuple[NDArray[np.uint8], NDArray[np.uint8]]]]
HISTOGRAMS = {
    "train": [5923, 6742, 5958, 6131, 5842, 5421, 5918, 6265, 5851, 5949],
    "test": [980, 1135, 1032, 1010, 982, 892, 958, 1028, 974, 1009],
}


@pytest.fixture(autouse=True)
def no_surroundings(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Neither this machine's data nor its cache nor its network: a dead mirror instead."""
    monkeypatch.delenv("PYCAFFE_PRUNE_DATA", raising=False)
    monkeypatch.setenv("PYCAFFE_PRUNE_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("PYCAFFE_PRUNE_MNIST_MIRRORS", "http://127.0.0.1:9/mnist/")
    monkeypatch.setenv("NO_PROXY", "*")


def records(path: Path) -> list[Datum]:
    with lmdb.open(str(path), readonly=True, lock=False) as environment, environment.begin() as txn:
        return [Datum.FromString(value) for _, value in txn.cursor()]


def test_the_lmdbs_hold_the_files_images_in_their_order(
    small_mnist: Small, tmp_path: Path, console: Console
) -> None:
    folder, content = small_mnist
    manifest = build_mnist(tmp_path / "out", folder, console=console)
    assert (manifest.name, manifest.source, manifest.is_sample) == ("mnist", "local files", False)
    assert {split.lmdb for split in manifest.splits.values()} == {
        "mnist_train_lmdb",
        "mnist_test_lmdb",
    }
    for name, split in manifest.splits.items():
        images, labels = content[name]
        found = records(tmp_path / "out" / split.lmdb)
        assert split.count == len(found) == len(images)
        assert all((datum.channels, datum.height, datum.width) == (1, 28, 28) for datum in found)
        assert b"".join(datum.data for datum in found) == images.tobytes()
        assert [datum.label for datum in found] == labels.tolist()
        assert split.label_histogram == np.bincount(labels).tolist()
    assert verify_manifest(tmp_path / "out") == manifest


def test_held_out_images_are_the_last_to_train_on_and_the_test_images_are_not_touched(
    small_mnist: Small, tmp_path: Path, console: Console
) -> None:
    folder, content = small_mnist
    images, labels = content["train"]
    count = len(labels) // 3
    manifest = build_mnist(tmp_path / "out", folder, hold_out=count, console=console)
    parts = {"train": slice(None, -count), "test": slice(-count, None)}
    for name, split in manifest.splits.items():
        found = records(tmp_path / "out" / split.lmdb)
        assert b"".join(datum.data for datum in found) == images[parts[name]].tobytes()
        assert [datum.label for datum in found] == labels[parts[name]].tolist()
    assert manifest.source.endswith(f"the test set is the last {count:,} training images")
    assert manifest.warnings == []
    with pytest.raises(DataError, match="choose another --out"):
        build_mnist(tmp_path / "out", folder, console=console)


@pytest.mark.parametrize("count", [-1, 10**6])
def test_no_more_can_be_held_out_than_there_is(
    small_mnist: Small, tmp_path: Path, console: Console, count: int
) -> None:
    with pytest.raises(DataError, match="training images cannot be held out"):
        build_mnist(tmp_path / "out", small_mnist[0], hold_out=count, console=console)


def test_other_content_than_the_originals_is_told_for_each_lmdb(
    small_mnist: Small, tmp_path: Path, console: Console
) -> None:
    folder, _ = small_mnist
    warnings = build_mnist(tmp_path / "out", folder, console=console).warnings
    assert warnings == [
        f"mnist_{split}_lmdb: not the content of the original mnist files"
        for split in ("train", "test")
    ]


def test_the_data_variable_is_the_next_source(
    small_mnist: Small, tmp_path: Path, console: Console, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder, _ = small_mnist
    folder.rename(tmp_path / "mnist")
    monkeypatch.setenv("PYCAFFE_PRUNE_DATA", str(tmp_path))
    manifest = build_mnist(tmp_path / "out", console=console)
    assert manifest.source == "local files"
    assert manifest.splits["train"].count == 23


def test_without_any_source_and_network_it_says_what_can_be_done(
    tmp_path: Path, console: Console, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PYCAFFE_PRUNE_DATA", str(tmp_path))  # has no mnist in it
    with pytest.raises(DataError, match=r"127\.0\.0\.1:9/mnist/train-images.*--source"):
        build_mnist(tmp_path / "out", console=console)
    assert not [path for path in (tmp_path / "out").iterdir() if not path.name.startswith(".")]


def test_a_missing_file_is_named(small_mnist: Small, tmp_path: Path, console: Console) -> None:
    folder, _ = small_mnist
    (folder / "t10k-labels.idx1-ubyte").unlink()
    with pytest.raises(DataError, match=r"t10k-labels-idx1-ubyte .*is not there"):
        build_mnist(tmp_path / "out", folder, console=console)


@pytest.mark.parametrize("shape", [(3, 27, 28), (0, 28, 28), (12,), (3, 28, 28, 1)])
def test_images_of_another_size_are_refused(
    shape: tuple[int, ...],
    small_mnist: Small,
    tmp_path: Path,
    console: Console,
    idx_bytes: Callable[[NDArray[np.uint8]], bytes],
) -> None:
    folder, _ = small_mnist
    path = folder / "train-images-idx3-ubyte"  # the unpacked file goes before the packed one
    path.write_bytes(idx_bytes(np.zeros(shape, np.uint8)))
    with pytest.raises(DataError, match="not 28×28 images"):
        build_mnist(tmp_path / "out", folder, console=console)


def test_a_truncated_file_leaves_no_data_set(
    small_mnist: Small, tmp_path: Path, console: Console
) -> None:
    folder, _ = small_mnist
    path = folder / "t10k-images-idx3-ubyte.gz"
    path.write_bytes(gzip.compress(gzip.decompress(path.read_bytes())[:-1]))
    with pytest.raises(DataError, match=r"t10k-images-idx3-ubyte.gz: truncated"):
        build_mnist(tmp_path / "out", folder, console=console)
    assert not [path for path in (tmp_path / "out").iterdir() if not path.name.startswith(".")]


@pytest.mark.mnist
def test_the_real_files_give_the_real_counts_without_a_warning(
    mnist_source: Path, tmp_path: Path, console: Console
) -> None:
    manifest = build_mnist(tmp_path / "out", mnist_source, console=console)
    assert manifest.warnings == []
    assert {name: split.count for name, split in manifest.splits.items()} == {
        "train": 60_000,
        "test": 10_000,
    }
    for name, split in manifest.splits.items():
        assert split.label_histogram == HISTOGRAMS[name]
        assert lmdb_content_checksum(tmp_path / "out" / split.lmdb) == split.sha256
    images = parse_idx(read_unpacked(mnist_source / "train-images-idx3-ubyte.gz"), "train")
    blob = BlobProto.FromString((tmp_path / "out" / "mean.binaryproto").read_bytes())
    # 60,000 × 255 is below 2**24: Caffe's float32 sums are exact here.
    exact = images.sum(axis=0, dtype=np.int64).astype(np.float32) / np.float32(60_000)
    assert np.array_equal(np.array(blob.data, np.float32).reshape(28, 28), exact)


@pytest.mark.mnist
def test_a_download_is_checked_kept_and_gives_the_same_lmdbs(
    mnist_source: Path, tmp_path: Path, console: Console, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Quiet(SimpleHTTPRequestHandler):
        def log_message(self, *args: object) -> None:
            pass

    bad = tmp_path / "bad mirror"
    shutil.copytree(mnist_source, bad)
    (bad / "t10k-labels-idx1-ubyte.gz").chmod(0o644)
    (bad / "t10k-labels-idx1-ubyte.gz").write_bytes(gzip.compress(b"not the labels"))
    with (
        ThreadingHTTPServer(("127.0.0.1", 0), partial(Quiet, directory=str(bad))) as first,
        ThreadingHTTPServer(
            ("127.0.0.1", 0), partial(Quiet, directory=str(mnist_source))
        ) as second,
    ):
        threads = [Thread(target=server.serve_forever, args=(0.02,)) for server in (first, second)]
        for thread in threads:
            thread.start()
        monkeypatch.setenv(
            "PYCAFFE_PRUNE_MNIST_MIRRORS",
            f"http://127.0.0.1:{first.server_port} http://127.0.0.1:{second.server_port}/",
        )
        try:
            downloaded = build_mnist(tmp_path / "out", console=console)
        finally:
            for server, thread in zip((first, second), threads, strict=True):
                server.shutdown()
                thread.join()
    assert downloaded.source == "download"
    offline = build_mnist(tmp_path / "again", console=console)  # the servers are gone
    local = build_mnist(tmp_path / "local", mnist_source, console=console)
    assert downloaded.splits == offline.splits == local.splits
    assert downloaded.mean_sha256 == local.mean_sha256
