from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from data_prep.flowers102_lists import LABELS_FILE, SPLIT_FILE, image_lists, read_parts
from pycaffe_prune.errors import DataError

scipy_io = pytest.importorskip("scipy.io")


def write(folder: Path, labels: Any, **parts: Any) -> tuple[Path, Path]:
    """Write the two files; a part that is not given has one image of its own."""
    defaults = {"trnid": [[1]], "valid": [[2]], "tstid": [[3]]}
    scipy_io.savemat(folder / LABELS_FILE, {"labels": np.asarray(labels)})
    scipy_io.savemat(
        folder / SPLIT_FILE,
        {name: np.asarray(part) for name, part in (defaults | parts).items()},
    )
    return folder / LABELS_FILE, folder / SPLIT_FILE


def test_labels_count_from_0_and_the_parts_are_swapped(tmp_path: Path) -> None:
    files = write(tmp_path, [[5, 1, 2, 9, 4]], trnid=[[4, 1]], tstid=[[5, 3]])
    parts = read_parts(*files)
    lists = image_lists(parts)
    assert {(image.number, image.label) for image in lists["train"]} == {(3, 1), (5, 3)}
    assert {(image.number, image.label) for image in lists["test"]} == {(1, 4), (4, 8)}
    assert [parts.part_of(number) for number in (1, 2, 3)] == ["test", "unused", "train"]


def test_each_part_is_shuffled_by_its_own_draw_in_the_recipes_order(tmp_path: Path) -> None:
    numbers = np.arange(1, 601, dtype=np.uint16)[np.newaxis]
    trnid, tstid, valid = numbers[:, :100], numbers[:, 100:500], numbers[:, 500:]
    files = write(tmp_path, numbers % 7 + 1, trnid=trnid, tstid=tstid, valid=valid)
    lists = image_lists(read_parts(*files))
    # The recipe's own lines (bootstrap.py), which seed NumPy's global generator.
    random = np.random.mtrand.RandomState()
    random.seed(777)
    test = trnid[0][random.permutation(100)]
    train = tstid[0][random.permutation(400)]
    assert [image.number for image in lists["train"]] == train.tolist()
    assert [image.number for image in lists["test"]] == test.tolist()


def test_the_official_files_give_the_papers_counts(data_dir: Path) -> None:
    folder = data_dir / "flowers102"
    if not (folder / SPLIT_FILE).is_file():
        pytest.skip(f"{folder / SPLIT_FILE}: is not here")
    lists = image_lists(read_parts(folder / LABELS_FILE, folder / SPLIT_FILE))
    train, test = (Counter(image.label for image in lists[split]) for split in ("train", "test"))
    assert (train.total(), test.total()) == (6149, 1020)
    assert set(train) == set(test) == set(range(102))
    assert set(test.values()) == {10}
    assert (min(train.values()), max(train.values())) == (20, 238)
    assert lists["train"][0].name.startswith("jpg/image_0")


@pytest.mark.parametrize(
    ("labels", "parts", "words"),
    [
        ([[1, 2, 3]], {"tstid": [[4]]}, r"names images 1 to 4.* 1 to 3: they do not belong"),
        ([[1, 2, 3]], {"tstid": [[0]]}, "names images 0 to 2"),
        ([[1, 0, 3]], {}, "has a label 0"),
        ([[1, 2, 3]], {"tstid": [[3, 1]]}, "an image in two parts"),
        ([[1, 2, 3]], {"tstid": [[3, 3]]}, "twice in one"),
        ([[1], [2], [3]], {}, r"'labels' is shape \(3, 1\), not one row"),
        ([[1.0, 2.0, 3.5]], {}, "'labels' holds float64, not whole numbers"),
        ([[1, 2, 3]], {"valid": np.zeros((1, 0), int)}, "'valid' is shape"),
    ],
)
def test_what_cannot_be_the_official_files_is_refused(
    labels: Any, parts: Any, words: str, tmp_path: Path
) -> None:
    with pytest.raises(DataError, match=words):
        read_parts(*write(tmp_path, labels, **parts))


def test_a_missing_variable_is_told(tmp_path: Path) -> None:
    labels, split = write(tmp_path, [[1, 2, 3]])
    with pytest.raises(DataError, match=r"'labels' is nothing.*Is it setid\.mat"):
        read_parts(split, labels)


@pytest.mark.parametrize("keep", [0, 100, 200, 250])
def test_a_damaged_file_is_one_sentence(keep: int, tmp_path: Path) -> None:
    labels, split = write(tmp_path, [[1, 2, 3]])
    split.write_bytes(split.read_bytes()[:keep])
    with pytest.raises(DataError, match=r"setid\.mat: .*"):
        read_parts(labels, split)
    split.write_bytes(b"<html>" * 100)
    with pytest.raises(DataError, match=r"setid\.mat: .*Get the file again"):
        read_parts(labels, split)
