import hashlib
import os
import shutil
import subprocess
import tarfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread
from typing import Any

import cv2
import numpy as np
import pytest
from numpy.typing import NDArray
from rich.console import Console

from data_prep import flowers102
from data_prep.flowers102 import build_flowers102
from data_prep.flowers102_lists import ListedImage, image_lists, read_parts
from data_prep.manifest import Manifest, load_manifest, verify_manifest
from data_prep.warp import decode, warp
from pycaffe_prune.errors import DataError
from pycaffe_prune.formats.caffe_pb2 import Datum
from pycaffe_prune.formats.mean import read_mean, write_mean
from tests.data_prep.conftest import SmallFlowers, stored

SIZE = 32
RESIZED_40 = "0f637c0efdbea66ebec83ffeeff6d88880951a6c2332d8ae73a284f50398f3bb"
Build = Callable[..., Manifest]


@pytest.fixture(autouse=True)
def no_surroundings(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Neither this machine's data nor its cache nor its network: a dead mirror instead."""
    monkeypatch.delenv("PYCAFFE_PRUNE_DATA", raising=False)
    monkeypatch.setenv("PYCAFFE_PRUNE_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("PYCAFFE_PRUNE_FLOWERS_MIRRORS", "http://127.0.0.1:9/102/")
    monkeypatch.setenv("NO_PROXY", "*")


@pytest.fixture
def build(small_flowers: SmallFlowers, tmp_path: Path, console: Console) -> Build:
    """Build the twelve flowers in ``out``, small."""
    return partial(
        build_flowers102, tmp_path / "out", small_flowers.folder, size=SIZE, console=console
    )


@pytest.fixture
def out(tmp_path: Path) -> Path:
    return tmp_path / "out"


def lists_of(folder: Path) -> dict[str, list[ListedImage]]:
    return dict(image_lists(read_parts(folder / "imagelabels.mat", folder / "setid.mat")))


def pixels_of(datum: Datum) -> NDArray[np.uint8]:
    shape = datum.channels, datum.height, datum.width
    return np.frombuffer(datum.data, np.uint8).reshape(shape)


def visible(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir() if path.name != ".build.lock")


def test_the_lmdbs_hold_the_warped_images_in_the_lists_order(
    small_flowers: SmallFlowers, build: Build, out: Path
) -> None:
    manifest = build()
    assert (manifest.name, manifest.source, manifest.is_sample) == (
        *("flowers102", "local files", False),
    )
    for split, listed in lists_of(small_flowers.folder).items():
        found = stored(out / f"flowers102_{split}_lmdb")
        assert [key.decode() for key, _ in found] == [
            f"{place:08}_{image.name}" for place, image in enumerate(listed)
        ]
        assert [datum.label for _, datum in found] == [image.label for image in listed]
        for image, (_, datum) in zip(listed, found, strict=True):
            file = small_flowers.image(image.number)
            expected = cv2.resize(cv2.imread(str(file)), (SIZE, SIZE))
            assert np.array_equal(pixels_of(datum), expected.transpose(2, 0, 1))
    assert manifest.splits["train"].label_histogram == [2, 2, 2]
    assert manifest.splits["test"].label_histogram == [2, 1, 1]
    assert verify_manifest(out) == manifest
    assert all("not the original" in warning for warning in manifest.warnings)


def test_the_mean_is_that_of_the_training_images(build: Build, out: Path) -> None:
    build()
    images = [pixels_of(datum) for _, datum in stored(out / "flowers102_train_lmdb")]
    expected = np.sum(images, axis=0, dtype=np.float32) / np.float32(len(images))
    assert np.array_equal(read_mean(out / "mean.binaryproto"), expected)


def test_any_number_of_threads_makes_the_same(
    build: Build, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(flowers102, "_BATCH", 1)
    alone, together = build(threads=1), build(threads=5, force=True)
    assert alone == together


@pytest.mark.parametrize("name", ["x.tar", "x.tgz"])
def test_an_archive_makes_the_same_as_its_folder(
    name: str, small_flowers: SmallFlowers, build: Build, out: Path, console: Console
) -> None:
    archive = small_flowers.folder / name
    with tarfile.open(archive, "w:gz" if name.endswith("gz") else "w:") as tar:
        tar.add(small_flowers.folder / "jpg", "jpg")
    folder = build()
    found = build_flowers102(out, archive, size=SIZE, force=True, console=console)
    assert found.splits == folder.splits
    assert visible(out) == [
        *("flowers102_test_lmdb", "flowers102_train_lmdb", "manifest.json", "mean.binaryproto"),
    ]


def test_encoded_records_are_jpegs_and_the_mean_is_of_what_they_show(
    small_flowers: SmallFlowers, build: Build, out: Path
) -> None:
    fitting = lists_of(small_flowers.folder)["train"][1]
    path = small_flowers.image(fitting.number)
    assert cv2.imwrite(str(path), cv2.resize(cv2.imread(str(path)), (SIZE, SIZE)))
    assert build(encoded=True).encoded
    found = [datum for _, datum in stored(out / "flowers102_train_lmdb")]
    assert all(datum.encoded for datum in found)
    assert found[1].data == path.read_bytes()
    images = [decode(datum.data).transpose(2, 0, 1) for datum in found]
    assert {image.shape for image in images} == {(3, SIZE, SIZE)}
    expected = np.sum(images, axis=0, dtype=np.float32) / np.float32(len(images))
    assert np.array_equal(read_mean(out / "mean.binaryproto"), expected)


def test_large_encoded_files_have_room(
    small_flowers: SmallFlowers, build: Build, out: Path
) -> None:
    for number in range(1, 13):
        path = small_flowers.image(number)
        assert cv2.imwrite(str(path), cv2.resize(cv2.imread(str(path)), (SIZE, SIZE)))
        content = path.read_bytes()
        comment = b"\xff\xfe\xff\xff" + bytes(65533)
        path.write_bytes(content[:2] + 8 * comment + content[2:])
    build(encoded=True)
    assert all(len(datum.data) > 500_000 for _, datum in stored(out / "flowers102_train_lmdb"))


def test_a_given_mean_is_taken_and_must_fit(build: Build, out: Path, tmp_path: Path) -> None:
    mean = np.random.default_rng(2).random((3, SIZE, SIZE), dtype=np.float32)
    write_mean(tmp_path / "other.binaryproto", mean)
    assert build(mean=tmp_path / "other.binaryproto").mean_of == "other.binaryproto"
    assert np.array_equal(read_mean(out / "mean.binaryproto"), mean)
    with pytest.raises(DataError, match=r"3×32×32, the images are 3×31×31; give --size 32"):
        build(mean=tmp_path / "other.binaryproto", size=SIZE - 1, force=True)


def test_the_ilsvrc_mean_is_found_in_the_data_folder(
    build: Build, out: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(DataError, match=r"ILSVRC 2012 is not in \$PYCAFFE_PRUNE_DATA/ilsvrc12"):
        build(mean="ilsvrc")
    (tmp_path / "ilsvrc12").mkdir()
    np.save(tmp_path / "ilsvrc12" / "ilsvrc_2012_mean.npy", np.full((3, SIZE, SIZE), 104.5))
    monkeypatch.setenv("PYCAFFE_PRUNE_DATA", str(tmp_path))
    assert build(mean="ilsvrc").mean_of == "ILSVRC 2012"
    assert np.array_equal(read_mean(out / "mean.binaryproto"), np.full((3, SIZE, SIZE), 104.5))
    monkeypatch.delenv("PYCAFFE_PRUNE_DATA")
    assert build(mean="ilsvrc").mean_of == "ILSVRC 2012"  # it is there: nothing is read


def test_a_limit_takes_the_head_of_each_list_and_says_sample(build: Build, out: Path) -> None:
    whole = {split: stored(out / f"flowers102_{split}_lmdb") for split in build().splits}
    limited = build(limit=3, force=True)
    assert limited.is_sample
    for split, records in whole.items():
        assert stored(out / f"flowers102_{split}_lmdb") == records[:3]


def spoil(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-40])


@pytest.mark.parametrize("harm", [Path.unlink, spoil])
def test_missing_and_damaged_images_are_named_and_left_out_only_when_told(
    harm: Callable[[Path], None], small_flowers: SmallFlowers, build: Build, out: Path
) -> None:
    whole = {split: stored(out / f"flowers102_{split}_lmdb") for split in build().splits}
    first, second = lists_of(small_flowers.folder)["train"][2:4]
    for image in (first, second):
        harm(small_flowers.image(image.number))
    with pytest.raises(DataError, match=rf"2 train .*{first.name}, {second.name}.*--keep-going"):
        build(force=True)
    assert not load_manifest(out).splits["train"].left_out  # the old one is still there, whole
    manifest = build(force=True, keep_going=True)
    assert manifest.is_sample
    assert manifest.splits["train"].left_out == [first.name, second.name]
    assert any(first.name in warning for warning in manifest.warnings)
    # The others keep their keys, as in convert_imageset.
    train = whole["train"]
    assert stored(out / "flowers102_train_lmdb") == train[:2] + train[4:]
    assert stored(out / "flowers102_test_lmdb") == whole["test"]
    assert build(keep_going=True) == manifest  # already built


def test_no_usable_image_at_all_is_refused(small_flowers: SmallFlowers, build: Build) -> None:
    for number in small_flowers.trnid:
        small_flowers.image(number).unlink()
    with pytest.raises(DataError, match="none of its 4 images can be used"):
        build(keep_going=True)


def test_the_same_file_twice_is_told_with_its_parts(
    small_flowers: SmallFlowers, build: Build
) -> None:
    shutil.copy(small_flowers.image(5), small_flowers.image(7))
    shutil.copy(small_flowers.image(5), small_flowers.image(12))
    assert (
        "image_00005.jpg (test) and image_00007.jpg (train) and image_00012.jpg (unused) are the "
        "same file"
    ) in build().warnings


@pytest.mark.parametrize(
    ("other", "words"),
    [
        ({"encoded": True}, "as raw images .*, not as encoded"),
        ({"size": 16}, "3×32×32 .* not as raw images of 3×16×16"),
        ({"limit": 2}, "6 train and 4 test images, but the source has 2 train and 2 test"),
    ],
)
def test_a_set_of_another_kind_wants_force(other: dict[str, Any], words: str, build: Build) -> None:
    first = build()
    with pytest.raises(DataError, match=f"{words}.*--force"):
        build(**other)
    assert build() == first


def test_files_that_are_not_there_are_told(
    small_flowers: SmallFlowers, build: Build, tmp_path: Path
) -> None:
    (small_flowers.folder / "setid.mat").rename(tmp_path / "setid.mat")
    # One folder above: here that is tmp_path, which has one of the two only.
    with pytest.raises(DataError, match=r"imagelabels\.mat and setid\.mat are not there.*--labels"):
        build()
    shutil.copy(small_flowers.folder / "imagelabels.mat", tmp_path)
    build()
    build(labels=tmp_path, force=True)


def test_without_any_source_and_network_it_says_what_can_be_done(
    out: Path, console: Console
) -> None:
    with pytest.raises(DataError, match=r"127\.0\.0\.1:9/102/setid\.mat.*--source.*MIRRORS"):
        build_flowers102(out, console=console)
    assert visible(out) == []


@contextmanager
def serving(folder: Path) -> Iterator[str]:
    class Quiet(SimpleHTTPRequestHandler):
        def log_message(self, *args: object) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), partial(Quiet, directory=str(folder))) as server:
        thread = Thread(target=server.serve_forever, args=(0.02,))
        thread.start()
        try:
            yield f"http://127.0.0.1:{server.server_port}"
        finally:
            server.shutdown()
            thread.join()


def test_a_download_is_checked_kept_and_makes_the_same(
    small_flowers: SmallFlowers,
    build: Build,
    out: Path,
    tmp_path: Path,
    console: Console,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    local = build()
    served = tmp_path / "served"
    served.mkdir()
    for name in ("imagelabels.mat", "setid.mat"):
        shutil.copy(small_flowers.folder / name, served)
    with tarfile.open(served / "102flowers.tgz", "w:gz") as tar:
        tar.add(small_flowers.folder / "jpg", "jpg")
    again = partial(build_flowers102, tmp_path / "downloaded", size=SIZE, console=console)
    monkeypatch.setattr(flowers102, "_FULL_COUNTS", {"train": 6, "test": 4})
    with serving(served) as url:
        monkeypatch.setenv("PYCAFFE_PRUNE_FLOWERS_MIRRORS", url)
        with pytest.raises(DataError, match=r"it has md5 [0-9a-f]+, setid\.mat has a5357ecc"):
            again()
        sums = {
            path.name: hashlib.md5(path.read_bytes(), usedforsecurity=False).hexdigest()
            for path in served.iterdir()
        }
        monkeypatch.setattr(flowers102, "_MD5", sums)
        downloaded = again()
    assert downloaded.source == "download"
    assert downloaded.splits == local.splits
    assert again(force=True) == downloaded  # the server is gone


def test_the_forty_originals_are_warped_to_the_recorded_bytes(
    data_dir: Path, out: Path, console: Console
) -> None:
    folder = data_dir / "flowers102"
    source = folder / "original-subset"
    if not source.is_dir():
        pytest.skip(f"{source}: is not here")
    manifest = build_flowers102(out, source, labels=folder, keep_going=True, console=console)
    assert [manifest.splits[name].count for name in ("train", "test")] == [25, 9]
    records = {
        key.decode().partition("jpg/")[2]: pixels_of(datum).transpose(1, 2, 0).tobytes()
        for split in manifest.splits.values()
        for key, datum in stored(out / split.lmdb)
    }
    digest = hashlib.sha256()
    for path in sorted((source / "jpg").iterdir()):
        # Six of the forty are in the part that the paper does not use.
        digest.update(records.get(path.name) or warp(decode(path.read_bytes()), 256).tobytes())
    assert len(records) == 34
    assert digest.hexdigest() == RESIZED_40


def run_tool(command: list[str], *arguments: str | Path) -> None:
    done = subprocess.run(
        [*command, *map(str, arguments)],
        capture_output=True,
        text=True,
        check=False,
        timeout=120,
        env={**os.environ, "GLOG_minloglevel": "1"},
    )
    assert done.returncode == 0, done.stderr


@pytest.mark.real_caffe
@pytest.mark.parametrize("encoded", [False, True])
def test_the_real_tools_make_the_same_of_the_forty_originals(
    encoded: bool,
    data_dir: Path,
    out: Path,
    tmp_path: Path,
    console: Console,
    caffe_tool: Callable[[str], list[str]],
) -> None:
    convert, compute = caffe_tool("convert_imageset"), caffe_tool("compute_image_mean")
    folder = data_dir / "flowers102"
    source = folder / "original-subset"
    if not source.is_dir():
        pytest.skip(f"{source}: is not here")
    manifest = build_flowers102(
        out, source, labels=folder, keep_going=True, encoded=encoded, console=console
    )
    for split, listed in lists_of(folder).items():
        # The tool passes over what it cannot read; a list of thousands it would report at length.
        there = [image for image in listed if (source / image.name).is_file()]
        list_file = tmp_path / f"{split}.txt"
        list_file.write_text("".join(f"{image.name} {image.label}\n" for image in there))
        theirs = tmp_path / f"{split}_lmdb"
        flags = ["--resize_height=256", "--resize_width=256", *(["--encoded"] if encoded else [])]
        run_tool(convert, *flags, f"{source}/", list_file, theirs)
        ours = stored(out / manifest.splits[split].lmdb)
        found = stored(theirs)
        assert [key[9:] for key, _ in found] == [key[9:] for key, _ in ours]
        for (_, datum), (_, other) in zip(ours, found, strict=True):
            assert datum == other
            assert datum.SerializeToString() == other.SerializeToString()
    run_tool(compute, tmp_path / "train_lmdb", tmp_path / "mean.binaryproto")
    assert (tmp_path / "mean.binaryproto").read_bytes() == (out / manifest.mean).read_bytes()
