from pathlib import Path

import pytest

from pycaffe_prune.engines.data_paths import DataFolder as Folder
from pycaffe_prune.engines.readable import Readable
from pycaffe_prune.errors import DataError, FormatError


def DataFolder(data: Path | None, *own: Path, trust: bool = False) -> Folder:  # noqa: N802
    return Folder(data, Readable.of(Path("/a/net.prototxt"), data, own, trust=trust))


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    for name in ("train.txt", "deep/er/train.txt", "mean.binaryproto"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text("a file")
    return tmp_path


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("train.txt", "train.txt"),
        ("er/train.txt", "train.txt"),
        ("deep/er/train.txt", "deep/er/train.txt"),
        ("examples/deep/er/train.txt", "deep/er/train.txt"),  # the longest tail
        ("/home/somebody/caffe/deep/er/train.txt", "deep/er/train.txt"),
        ("../../data/mean.binaryproto", "mean.binaryproto"),
        (r"C:\caffe\deep\er\train.txt", "deep/er/train.txt"),
    ],
)
def test_a_file_is_found_by_the_most_of_its_path_that_is_there(
    folder: Path, name: str, expected: str
) -> None:
    assert DataFolder(folder).file(name, "a list") == folder / expected


def test_an_absolute_path_is_read_below_a_folder_of_one_s_own_or_trusted(
    folder: Path, tmp_path_factory: pytest.TempPathFactory
) -> None:
    name, other = str(folder / "deep/er/train.txt"), tmp_path_factory.mktemp("data")
    for given in (
        DataFolder(folder / "deep"),
        DataFolder(other, folder),
        DataFolder(other, trust=True),
    ):
        assert given.file(name, "a list") == Path(name)
    with pytest.raises(FormatError, match=f"^/a/net.prototxt: names the file {name}; .*--trust"):
        DataFolder(other).file(name, "a list")


def test_without_a_folder_paths_are_those_of_the_working_directory(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(folder)
    assert DataFolder(None).file("deep/er/train.txt", "a list") == folder / "deep/er/train.txt"
    with pytest.raises(FormatError, match=f"^{folder}/lists/train.txt: no such file; a list"):
        DataFolder(None).file("lists/train.txt", "a list")


def test_a_missing_file_names_all_places_where_it_is_not(folder: Path) -> None:
    places = f"{folder}/a/b/none: no such file, nor {folder}/b/none, {folder}/none; a mean image"
    with pytest.raises(FormatError, match=places):
        DataFolder(folder).file("a/b/none", "a mean image")


def test_train_and_test_data_are_not_taken_for_one_another(folder: Path) -> None:
    data = DataFolder(folder)
    assert data.file("lists_of_a/train.txt", "a list") == folder / "train.txt"
    with pytest.raises(DataError, match=r"'lists_of_a/train.txt' and 'lists_of_b/train.txt' would"):
        data.file("lists_of_b/train.txt", "a list")


def test_one_file_may_be_named_by_more_and_by_less_of_its_path(folder: Path) -> None:
    data = DataFolder(folder)
    for name in ("mean.binaryproto", "data/mean.binaryproto", "../data/mean.binaryproto"):
        assert data.file(name, "a mean image") == folder / "mean.binaryproto"


def test_where_a_file_was_found_is_said_once(
    folder: Path, caplog: pytest.LogCaptureFixture
) -> None:
    for _ in range(2):
        DataFolder(folder).file("of/another/tree/mean.binaryproto", "a mean image")
    DataFolder(folder).file("mean.binaryproto", "a mean image")
    place = f"{folder}/mean.binaryproto"
    assert caplog.messages == [
        f"'of/another/tree/mean.binaryproto' was found by the last parts of its path: {place}"
    ]
