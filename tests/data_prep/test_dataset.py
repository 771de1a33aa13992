import signal
import subprocess
import sys
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from rich.console import Console

from data_prep.dataset import Content, Recipe, build_data_set, in_batches
from data_prep.lmdb_writer import StagedLmdb
from data_prep.manifest import MANIFEST_NAME, SplitName, load_manifest, verify_manifest
from pycaffe_prune.errors import DataError
from pycaffe_prune.formats.caffe_pb2 import BlobProto

SHAPE = (2, 3, 4)
LMDBS: Mapping[SplitName, str] = {"train": "train_lmdb", "test": "test_lmdb"}


def recipe(train: int = 30, test: int = 20, seed: int = 0) -> Recipe:
    random = np.random.default_rng(seed)
    images = random.integers(0, 256, (train + test, *SHAPE), dtype=np.uint8)
    labels = random.integers(0, 6, train + test)

    def load() -> Content:
        return Content(
            {
                "train": in_batches(images[:train], labels[:train]),
                "test": in_batches(images[train:], labels[train:]),
            },
            ["odd"],
        )

    return Recipe("mnist", "a test", False, LMDBS, {"train": train, "test": test}, SHAPE, load)


def never() -> Content:
    raise AssertionError("must not be loaded again")


def visible(folder: Path) -> set[str]:
    return {path.name for path in folder.iterdir()} - {".build.lock"}


ALL = {"train_lmdb", "test_lmdb", "mean.binaryproto", MANIFEST_NAME}


def test_a_built_set_holds_what_its_manifest_says(tmp_path: Path, console: Console) -> None:
    plan = recipe()
    content = plan.load()
    batches = {name: list(split) for name, split in content.splits.items()}
    manifest = build_data_set(tmp_path / "new" / "set", plan, force=False, console=console)
    out = tmp_path / "new" / "set"
    assert visible(out) == ALL
    assert verify_manifest(out) == manifest == load_manifest(out)
    assert manifest.warnings == ["odd"]
    for name, split in manifest.splits.items():
        labels = np.concatenate([batch.labels for batch in batches[name]])
        assert split.label_histogram == [int((labels == k).sum()) for k in range(labels.max() + 1)]
        assert sum(split.label_histogram) == split.count == plan.counts[name]
    mean = BlobProto.FromString((out / manifest.mean).read_bytes())
    expected = batches["train"][0].images.mean(axis=0)
    assert np.allclose(np.array(mean.data).reshape(SHAPE), expected, rtol=1e-6)


def test_the_second_time_nothing_is_done(tmp_path: Path, console: Console) -> None:
    first = build_data_set(tmp_path, recipe(), force=False, console=console)
    again = replace(recipe(), load=never)
    assert build_data_set(tmp_path, again, force=False, console=console) == first
    assert "already built" in console.file.getvalue()


def test_force_builds_again_and_replaces(tmp_path: Path, console: Console) -> None:
    first = build_data_set(tmp_path, recipe(), force=False, console=console)
    second = build_data_set(tmp_path, recipe(train=7, seed=1), force=True, console=console)
    assert second != first
    assert verify_manifest(tmp_path).splits["train"].count == 7
    assert visible(tmp_path) == ALL


def remove_lmdb(out: Path) -> None:
    (out / "test_lmdb" / "data.mdb").unlink()


def remove_mean(out: Path) -> None:
    (out / "mean.binaryproto").unlink()


@pytest.mark.parametrize("harm", [remove_lmdb, remove_mean])
def test_a_set_with_something_missing_is_built_again(
    harm: Callable[[Path], None], tmp_path: Path, console: Console
) -> None:
    first = build_data_set(tmp_path, recipe(), force=False, console=console)
    harm(tmp_path)
    assert build_data_set(tmp_path, recipe(), force=False, console=console) == first
    assert verify_manifest(tmp_path) == first


@pytest.mark.parametrize("force", [False, True])
def test_another_data_set_is_never_overwritten(
    force: bool, tmp_path: Path, console: Console
) -> None:
    first = build_data_set(tmp_path, recipe(), force=False, console=console)
    other = replace(recipe(), name="digits", load=never)
    with pytest.raises(DataError, match=r"holds the data set mnist, not digits.*another --out"):
        build_data_set(tmp_path, other, force=force, console=console)
    assert verify_manifest(tmp_path) == first


def test_the_same_set_with_other_counts_wants_force(tmp_path: Path, console: Console) -> None:
    build_data_set(tmp_path, recipe(), force=False, console=console)
    with pytest.raises(DataError, match=r"30 train and 20 test.*31 train and 20 test.*--force"):
        build_data_set(tmp_path, recipe(train=31), force=False, console=console)


def test_an_lmdb_of_unknown_origin_wants_force(tmp_path: Path, console: Console) -> None:
    (tmp_path / "train_lmdb").mkdir()
    (tmp_path / "train_lmdb" / "data.mdb").write_text("somebody's")
    with pytest.raises(DataError, match=r"train_lmdb: is there, but no manifest.json.*--force"):
        build_data_set(tmp_path, replace(recipe(), load=never), force=False, console=console)
    assert (tmp_path / "train_lmdb" / "data.mdb").read_text() == "somebody's"
    build_data_set(tmp_path, recipe(), force=True, console=console)
    verify_manifest(tmp_path)


def test_a_damaged_manifest_wants_force(tmp_path: Path, console: Console) -> None:
    build_data_set(tmp_path, recipe(), force=False, console=console)
    (tmp_path / MANIFEST_NAME).write_text("{")
    with pytest.raises(DataError, match="damaged"):
        build_data_set(tmp_path, replace(recipe(), load=never), force=False, console=console)
    build_data_set(tmp_path, recipe(), force=True, console=console)
    verify_manifest(tmp_path)


def test_a_failing_source_leaves_the_old_set_whole(tmp_path: Path, console: Console) -> None:
    first = build_data_set(tmp_path, recipe(), force=False, console=console)
    short = replace(recipe(), counts={"train": 30, "test": 21})
    with pytest.raises(DataError, match="21 images were announced, 20 came"):
        build_data_set(tmp_path, short, force=True, console=console)
    assert verify_manifest(tmp_path) == first
    assert visible(tmp_path) == ALL


def test_half_a_replacement_does_not_look_finished(
    tmp_path: Path, console: Console, monkeypatch: pytest.MonkeyPatch
) -> None:
    build_data_set(tmp_path, recipe(), force=False, console=console)
    publish = StagedLmdb.publish

    def broken(staged: StagedLmdb) -> None:
        if staged.target.name == "test_lmdb":
            raise DataError("pulled the plug")
        publish(staged)

    monkeypatch.setattr(StagedLmdb, "publish", broken)
    with pytest.raises(DataError, match="pulled the plug"):
        build_data_set(tmp_path, recipe(seed=1), force=True, console=console)
    with pytest.raises(DataError, match="no finished data set"):
        load_manifest(tmp_path)


def test_a_place_that_is_a_file_is_one_sentence(tmp_path: Path, console: Console) -> None:
    (tmp_path / "file").touch()
    for out in (tmp_path / "file", tmp_path / "file" / "below"):
        with pytest.raises(DataError, match="cannot be made"):
            build_data_set(out, replace(recipe(), load=never), force=False, console=console)


KILLED = """
import os, signal, sys
from pathlib import Path
import numpy as np
from rich.console import Console
from data_prep.dataset import Content, Recipe, build_data_set, in_batches
from data_prep.lmdb_writer import StagedLmdb

publish = StagedLmdb.publish

def publish_and_die(staged):
    publish(staged)
    os.kill(os.getpid(), signal.SIGKILL)

StagedLmdb.publish = publish_and_die
images = np.zeros((20, 2, 3, 4), np.uint8)
counts = {"train": 20, "test": 20}
build_data_set(
    Path(sys.argv[1]),
    Recipe("mnist", "a test", False, {"train": "train_lmdb", "test": "test_lmdb"}, counts,
           (2, 3, 4), lambda: Content({name: in_batches(images, images[:, 0, 0, 0])
                                       for name in counts})),
    force=True,
    console=Console(stderr=True),
)
"""


@pytest.mark.parametrize("is_replacement", [False, True])
def test_what_a_build_left_that_was_killed_between_its_lmdbs_is_built_again(
    is_replacement: bool, tmp_path: Path, console: Console
) -> None:
    if is_replacement:
        build_data_set(tmp_path, recipe(), force=False, console=console)
    killed = subprocess.run([sys.executable, "-c", KILLED, str(tmp_path)], check=False)
    assert killed.returncode == -signal.SIGKILL
    assert (tmp_path / "train_lmdb").is_dir()
    with pytest.raises(DataError, match="no finished data set"):
        load_manifest(tmp_path)
    digits = replace(recipe(), name="digits", load=never)
    with pytest.raises(DataError, match=r"train_lmdb: is there, but no manifest.json.*--force"):
        build_data_set(tmp_path, digits, force=False, console=console)
    build_data_set(tmp_path, recipe(), force=False, console=console)
    verify_manifest(tmp_path)
    assert visible(tmp_path) == ALL


BLOCKING = """
import sys, time
from pathlib import Path
import numpy as np
from rich.console import Console
from data_prep.dataset import Content, Recipe, build_data_set
from data_prep.lmdb_writer import Batch

def batches(name):
    for part in range(2):
        yield Batch(np.full((10, 2, 3, 4), part, np.uint8), np.zeros(10, int))
        if name == sys.argv[2]:
            print("in the middle", flush=True)
            time.sleep(600)

counts = {"train": 20, "test": 20}
build_data_set(
    Path(sys.argv[1]),
    Recipe("mnist", "a test", False, {"train": "train_lmdb", "test": "test_lmdb"}, counts,
           (2, 3, 4), lambda: Content({name: batches(name) for name in counts})),
    force=True,
    console=Console(stderr=True),
)
"""


def kill_in_the_middle(out: Path, split: str) -> None:
    with subprocess.Popen(
        [sys.executable, "-c", BLOCKING, str(out), split], stdout=subprocess.PIPE, text=True
    ) as build:
        assert build.stdout is not None
        assert build.stdout.readline() == "in the middle\n"
        build.kill()
        assert build.wait() == -signal.SIGKILL


@pytest.mark.parametrize("split", ["train", "test"])
def test_a_killed_build_leaves_nothing_that_looks_finished(
    split: str, tmp_path: Path, console: Console
) -> None:
    kill_in_the_middle(tmp_path, split)
    assert not visible(tmp_path) & ALL
    assert any(".partial-" in name for name in visible(tmp_path))
    with pytest.raises(DataError, match="no finished data set"):
        load_manifest(tmp_path)
    build_data_set(tmp_path, recipe(), force=False, console=console)
    assert visible(tmp_path) == ALL
    verify_manifest(tmp_path)


def test_a_killed_rebuild_leaves_the_old_set_whole(tmp_path: Path, console: Console) -> None:
    first = build_data_set(tmp_path, recipe(), force=False, console=console)
    kill_in_the_middle(tmp_path, "test")
    assert verify_manifest(tmp_path) == first
    build_data_set(tmp_path, recipe(), force=True, console=console)
    assert visible(tmp_path) == ALL
