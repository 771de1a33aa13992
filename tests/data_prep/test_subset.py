"""Subsets of classes: every chosen record as it was but for its label, and nothing else."""

import json
from io import StringIO
from itertools import chain
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner
from hypothesis import given, settings
from hypothesis import strategies as st
from rich.console import Console

from data_prep.dataset import Content, Recipe, build_data_set
from data_prep.lmdb_writer import Batch
from data_prep.manifest import load_manifest, verify_manifest
from data_prep.subset import (
    Subset,
    build_subset,
    drawn_classes,
    other_classes,
    parsed_classes,
    shown_classes,
)
from pycaffe_prune.cli.data import data
from pycaffe_prune.errors import DataError
from pycaffe_prune.formats.caffe_pb2 import Datum
from pycaffe_prune.formats.lmdb_file import LmdbFile
from pycaffe_prune.formats.mean import read_mean

LABELS = {"train": [3, 0, 1, 3, 5, 1, 0, 3, 1, 5] * 4, "test": [5, 1, 0, 3] * 3}
QUIET = Console(file=StringIO())


def _build(out: Path, dtype: type, labels: dict[str, list[int]] = LABELS, **more: object) -> None:
    """A data set whose image number n of a split holds values around n."""

    def batch(split: str) -> Batch:
        count = len(labels[split])
        values = np.arange(count * 12).reshape(count, 3, 2, 2) % 251
        return Batch(values.astype(dtype), np.array(labels[split]))

    recipe = Recipe(
        name="features",
        source="made up",
        is_sample=False,
        lmdbs={"train": "a_lmdb", "test": "b_lmdb"},
        counts={split: len(found) for split, found in labels.items()},
        shape=(3, 2, 2),
        load=lambda: Content({split: [batch(split)] for split in labels}, **more),
        mean_of="others" if more else "the training images",
    )
    build_data_set(out, recipe, force=False, console=QUIET)


@pytest.fixture(params=[np.uint8, np.float32], ids=["pixels", "values"])
def source(tmp_path: Path, request: pytest.FixtureRequest) -> Path:
    _build(tmp_path / "source", request.param)
    return tmp_path / "source"


def datums(folder: Path) -> list[Datum]:
    with LmdbFile(folder) as database:
        return [Datum.FromString(value) for _, value in database.records()]


def relabelled(found: list[Datum], classes: list[int]) -> list[bytes]:
    """The datums of these classes, with the labels that a subset gives them."""
    chosen = []
    for datum in found:
        if datum.label in classes:
            datum.label = classes.index(datum.label)
            chosen.append(datum.SerializeToString())
    return chosen


def test_a_subset_holds_the_chosen_records_in_their_order_and_no_other(source, tmp_path):
    out = tmp_path / "out"
    manifest = build_subset(out, Subset(source, [5, 1]), console=QUIET)
    for name in ("a_lmdb", "b_lmdb"):
        found = [datum.SerializeToString() for datum in datums(out / name)]
        assert found == relabelled(datums(source / name), [1, 5])
    assert manifest.splits["train"].label_histogram == [12, 8]
    assert verify_manifest(out) == load_manifest(out) == manifest
    assert (manifest.name, "classes 1,5 of features" in manifest.source) == ("subset", True)
    told = json.loads((out / "subset.json").read_text())
    assert told["classes"] == [1, 5]
    assert told["images"]["train"] == load_manifest(source).splits["train"].sha256
    kept = [np.array(LABELS["train"]) == label for label in (1, 5)]
    values = (np.arange(len(LABELS["train"]) * 12).reshape(-1, 12) % 251)[kept[0] | kept[1]]
    np.testing.assert_allclose(
        read_mean(out / manifest.mean).ravel(), values.mean(axis=0), rtol=1e-6
    )


def test_a_mean_image_that_was_given_stays(tmp_path):
    given = np.full((3, 2, 2), 7, np.float32)
    _build(tmp_path / "source", np.uint8, mean=given)
    manifest = build_subset(tmp_path / "out", Subset(tmp_path / "source", [0, 3]), console=QUIET)
    assert manifest.mean_of == "others"
    np.testing.assert_array_equal(read_mean(tmp_path / "out" / manifest.mean), given)


@pytest.mark.parametrize("pool", [1, 4, 9, 30])
def test_of_a_pool_each_image_is_in_one_split_and_the_classes_have_their_share(
    source, tmp_path, pool
):
    manifest = build_subset(tmp_path / "out", Subset(source, [0, 1, 3], pool), console=QUIET)
    splits = [datums(tmp_path / "out" / name) for name in ("a_lmdb", "b_lmdb")]
    assert len(splits[1]) == manifest.splits["test"].count == pool
    whole = relabelled([*datums(source / "a_lmdb"), *datums(source / "b_lmdb")], [0, 1, 3])
    assert sorted(d.SerializeToString() for d in chain(*splits)) == sorted(whole)
    shares = np.array([11, 15, 15]) * pool / 41
    held = np.bincount([datum.label for datum in splits[1]], minlength=3)
    assert (abs(held - shares) <= 1).all()


@pytest.mark.parametrize(
    ("wanted", "message"),
    [
        (([1, 2],), "no class 2 in its train images; it has the classes 0-1,3,5"),
        (([0, 1], 26), "26 of the 26 images"),
        (([7], 1), "no class 7; it has the classes 0-1,3,5"),
    ],
)
def test_what_is_not_there_is_refused_and_nothing_is_written(source, tmp_path, wanted, message):
    with pytest.raises(DataError, match=message):
        build_subset(tmp_path / "out", Subset(source, *wanted), console=QUIET)
    assert not (tmp_path / "out").exists()


def test_a_class_without_test_images_needs_a_pool(tmp_path):
    _build(tmp_path / "source", np.uint8, {"train": [0, 1, 1], "test": [0]})
    with pytest.raises(DataError, match="no class 1 in its test images"):
        build_subset(tmp_path / "out", Subset(tmp_path / "source", [0, 1]), console=QUIET)
    found = build_subset(tmp_path / "out", Subset(tmp_path / "source", [0, 1], 2), console=QUIET)
    assert found.splits["test"].label_histogram == [1, 1]


def test_what_is_built_is_known_and_another_subset_does_not_replace_it_unasked(source, tmp_path):
    out, said = tmp_path / "out", StringIO()
    before = build_subset(out, Subset(source, [0, 1]), console=QUIET)
    assert build_subset(out, Subset(source, [1, 0]), console=Console(file=said)) == before
    assert "already built" in said.getvalue()
    for other in (Subset(source, [0, 3]), Subset(source, [0, 1], 5)):
        with pytest.raises(DataError, match="--force"):
            build_subset(out, other, console=QUIET)
    assert load_manifest(out) == before
    assert build_subset(out, Subset(source, [0, 3]), force=True, console=QUIET) != before
    (out / "subset.json").write_text("[]")
    with pytest.raises(DataError, match=r"subset\.json: does not tell"):
        build_subset(out, Subset(source, [0, 3]), console=QUIET)


def test_the_source_itself_is_not_written_over_and_a_damaged_one_leaves_nothing(source, tmp_path):
    with pytest.raises(DataError, match="is the source itself"):
        build_subset(source, Subset(source, [0]), force=True, console=QUIET)
    verify_manifest(source)
    file = source / "a_lmdb" / "data.mdb"
    file.write_bytes(file.read_bytes()[:4096])
    with pytest.raises(DataError, match="truncated"):
        build_subset(tmp_path / "out", Subset(source, [0, 1]), console=QUIET)
    assert not (tmp_path / "out").exists()


@settings(max_examples=20, deadline=None)
@given(st.sets(st.integers(0, 200), min_size=1, max_size=30))
def test_a_list_of_classes_reads_as_it_is_shown(classes: set[int]) -> None:
    assert parsed_classes(shown_classes(classes)) == sorted(classes)


@pytest.mark.parametrize("text", ["", "a", "1,", "3-1", "1--2", "-1", "1-2-3", "0-99999999", "²"])
def test_what_is_no_list_of_classes_is_refused(text: str) -> None:
    with pytest.raises(DataError, match=r"list of classes|lead from a class"):
        parsed_classes(text)


def test_a_class_that_is_named_twice_is_refused() -> None:
    with pytest.raises(DataError, match="names class 3 twice"):
        parsed_classes("0-3,3")


def test_drawn_classes_and_the_others_are_all_and_hang_on_the_seed() -> None:
    there = list(range(102))
    drawn = drawn_classes(there, 20, 18)
    assert drawn == drawn_classes(there, 20, 18) != drawn_classes(there, 20, 19)
    assert sorted(drawn + other_classes(there, drawn)) == there
    assert (len(drawn), drawn) == (20, sorted(set(drawn)))
    for none_left in (0, 102):
        with pytest.raises(DataError, match="cannot be drawn"):
            drawn_classes(there, none_left, 1)
    with pytest.raises(DataError, match="no class 102; there are 0-101"):
        other_classes(there, [102])
    with pytest.raises(DataError, match="no classes beside 0-101"):
        other_classes(there, there)


def _call(*arguments: object) -> tuple[int, str, BaseException | None]:
    found = CliRunner().invoke(data, ["subset", *map(str, arguments)])
    return found.exit_code, found.output, found.exception


def test_the_command_builds_what_the_classes_or_the_seed_say(source, tmp_path):
    code, said, _ = _call(
        "--source", source, "--classes", "0-1", "--others", "--out", tmp_path / "a"
    )
    assert (code, "label: 3 5" in said, "labels 0:12 1:8" in said) == (0, True, True)
    drawn = drawn_classes([0, 1, 3, 5], 2, 4)
    seed = ("--source", source, "--draw", "2", "--seed", "4")
    code, said, _ = _call(*seed, "--pool", 3, "--out", tmp_path / "b")
    assert (code, f"label: {' '.join(map(str, drawn))}" in said) == (0, True)
    for wrong in (("--draw", 2), ("--seed", 2), (), ("--draw", 1, "--seed", 1, "--classes", "1")):
        code, said, _ = _call("--source", source, "--out", tmp_path / "c", *wrong)
        assert (code, "give either --classes, or --draw and --seed" in said) == (2, True)
    _, _, error = _call("--source", source, "--classes", "0,9", "--out", tmp_path / "c")
    assert "no class 9" in str(error)
    assert not (tmp_path / "c").exists()
