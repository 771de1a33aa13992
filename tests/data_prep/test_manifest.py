import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import lmdb
import numpy as np
import pytest

from data_prep.lmdb_writer import Batch
from data_prep.manifest import Manifest, Split, load_manifest, verify_manifest, write_manifest
from pycaffe_prune.errors import DataError
from pycaffe_prune.formats.files import sha256_of
from pycaffe_prune.formats.mean import write_mean
from tests.data_prep.lmdbs import write_lmdb


@pytest.fixture
def built(tmp_path: Path) -> Path:
    """A tiny but complete data set."""
    splits = {}
    for name, count in (("train", 6), ("test", 4)):
        batch = Batch(
            np.random.default_rng(count).integers(0, 256, (count, 1, 3, 3), dtype=np.uint8),
            np.arange(count) % 3,
        )
        lmdb_written = write_lmdb(tmp_path / name, [batch], count=count, shape=(1, 3, 3))
        splits[name] = Split(
            lmdb=name,
            count=count,
            label_histogram=np.bincount(batch.labels).tolist(),
            shape=(1, 3, 3),
            sha256=lmdb_written.sha256,
        )
    write_mean(tmp_path / "mean.binaryproto", np.ones((1, 3, 3), np.float32))
    write_manifest(
        tmp_path,
        Manifest(
            name="mnist",
            source="local files",
            is_sample=False,
            splits=splits,
            mean="mean.binaryproto",
            mean_sha256=sha256_of(tmp_path / "mean.binaryproto"),
            created_by="a test",
        ),
    )
    return tmp_path


def test_what_was_written_is_read_and_holds(built: Path) -> None:
    manifest = load_manifest(built)
    assert verify_manifest(built) == manifest
    text = json.loads((built / "manifest.json").read_text())
    assert text["schema_version"] == 1
    assert text["splits"]["train"]["label_histogram"] == [2, 2, 2]
    assert text["splits"]["test"]["count"] == 4
    write_manifest(built, manifest)
    assert load_manifest(built) == manifest


def test_without_a_manifest_the_remedy_is_named(tmp_path: Path) -> None:
    for folder in (tmp_path, tmp_path / "absent"):
        with pytest.raises(DataError, match=f"caffe-prune data NAME --out {folder}.*mnist"):
            load_manifest(folder)


@pytest.mark.parametrize(
    ("where", "value"),
    [
        (("schema_version",), 2),
        (("name",), "cifar"),
        (("splits", "train", "count"), 0),
        (("splits", "train", "count"), "six"),
        (("splits", "train", "shape"), [1, 3]),
        (("splits", "test", "extra"), 1),
        (("splits", "train", "lmdb"), "../../elsewhere"),
        (("splits", "test", "lmdb"), "/etc"),
        (("splits", "test", "lmdb"), ""),
        (("mean",), "../mean.binaryproto"),
        (("mean",), "a\x1b[31m"),
        (("mean_sha256",), "abc"),
        (("splits", "test", "sha256"), "abc"),
        (("splits",), {}),
        (("unknown",), 1),
    ],
)
def test_a_manifest_against_its_schema_is_damaged(
    where: tuple[str, ...], value: object, built: Path
) -> None:
    content = json.loads((built / "manifest.json").read_text())
    place = content
    for key in where[:-1]:
        place = place[key]
    place[where[-1]] = value
    (built / "manifest.json").write_text(json.dumps(content))
    with pytest.raises(DataError, match=f"damaged.*{where[-1]}.*remove .* and build it again"):
        load_manifest(built)


def test_a_cut_manifest_is_damaged(built: Path) -> None:
    path = built / "manifest.json"
    path.write_bytes(path.read_bytes()[:-20])
    with pytest.raises(DataError, match="damaged"):
        load_manifest(built)


def change_one_label(built: Path) -> None:
    with (
        lmdb.open(str(built / "test"), lock=False) as environment,
        environment.begin(write=True) as transaction,
    ):
        value = bytearray(transaction.get(b"00000002"))
        value[-1] ^= 1
        transaction.put(b"00000002", bytes(value))


def drop_a_record(built: Path) -> None:
    with (
        lmdb.open(str(built / "train"), lock=False) as environment,
        environment.begin(write=True) as transaction,
    ):
        transaction.delete(b"00000005")


def drop_the_mean(built: Path) -> None:
    (built / "mean.binaryproto").unlink()


def change_the_mean(built: Path) -> None:
    write_mean(built / "mean.binaryproto", np.zeros((1, 3, 3), np.float32))


@pytest.mark.parametrize(
    ("harm", "words"),
    [
        (change_one_label, "test: its content"),
        (drop_a_record, "train: has 5 images, its manifest says 6"),
        (drop_the_mean, "mean.binaryproto: is missing"),
        (change_the_mean, "mean.binaryproto: is not what"),
    ],
)
def test_every_harm_is_found_and_named(
    harm: Callable[[Path], None], words: str, built: Path
) -> None:
    harm(built)
    with pytest.raises(DataError, match=words) as caught:
        verify_manifest(built)
    assert f"caffe-prune data mnist --out {built} --force" in str(caught.value)


def test_features_are_made_again_by_their_own_command(built: Path) -> None:
    write_manifest(built, replace(load_manifest(built), name="features"))
    drop_the_mean(built)
    with pytest.raises(DataError, match=f"`caffe-prune features --out {built} --force`"):
        verify_manifest(built)
