import tarfile
from pathlib import Path

import pytest

from data_prep.image_files import duplicates, find_images
from pycaffe_prune.errors import DataError

FILES = {3: b"three", 12: b"twelve" * 900, 8188: b"", 45: b"three", 46: b"seven"}


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    source = tmp_path / "source"
    (source / "jpg").mkdir(parents=True)
    for number, content in FILES.items():
        (source / "jpg" / f"image_{number:05}.jpg").write_bytes(content)
    (source / "jpg" / "Thumbs.db").write_bytes(b"not an image")
    (source / "jpg" / "image_00002.jpg.part").write_bytes(b"not one either")
    return source


def packed(folder: Path, name: str, mode: str) -> Path:
    archive = folder.parent / name
    with tarfile.open(archive, mode) as tar:
        tar.add(folder / "jpg", "102flowers/jpg")
    return archive


def contents(source: Path, scratch: Path) -> dict[int, bytes]:
    return {number: file.read() for number, file in find_images(source, scratch).items()}


@pytest.mark.parametrize(
    ("name", "mode"), [("a.tar", "w:"), ("a.tgz", "w:gz"), ("a.tar", "w:gz"), ("a.tgz", "w:")]
)
def test_a_folder_and_every_archive_of_it_have_the_same_images(
    name: str, mode: str, folder: Path, tmp_path: Path
) -> None:
    scratch = tmp_path / "scratch"
    archive = packed(folder, name, mode)
    assert contents(folder, scratch) == contents(folder / "jpg", scratch) == FILES
    assert not scratch.exists()
    assert contents(archive, scratch) == FILES
    assert scratch.exists() == mode.endswith("gz")


def test_a_folder_with_one_archive_stands_for_it(folder: Path, tmp_path: Path) -> None:
    place = tmp_path / "place"
    place.mkdir()
    packed(folder, "x.tar", "w:").rename(place / "x.tar")
    assert contents(place, tmp_path / "scratch") == FILES
    (place / "y.tgz").touch()
    with pytest.raises(DataError, match=r"several archives \(x.tar, y.tgz\): name one"):
        find_images(place, tmp_path / "scratch")


def test_a_source_without_images_is_one_sentence(tmp_path: Path) -> None:
    empty = tmp_path / "empty"
    (empty / "jpg").mkdir(parents=True)
    with pytest.raises(DataError, match=r"empty: there is no image_NNNNN.jpg .* no .tar or .tgz"):
        find_images(empty, tmp_path / "scratch")
    with pytest.raises(DataError, match=r"no image_NNNNN\.jpg in this archive"):
        find_images(packed(empty, "e.tar", "w:"), tmp_path / "scratch")


def test_an_archive_that_ends_inside_an_image_is_told(folder: Path, tmp_path: Path) -> None:
    archive = packed(folder, "cut.tar", "w:")
    whole = archive.read_bytes()
    image = find_images(archive, tmp_path / "scratch")[12]
    for length in (3, image.offset + 1, image.offset + image.size - 1):
        archive.write_bytes(whole[:length])
        with pytest.raises(DataError, match=r"cut\.tar: "):
            find_images(archive, tmp_path / "scratch")


def test_a_packed_archive_that_ends_too_soon_is_told(folder: Path, tmp_path: Path) -> None:
    archive = packed(folder, "cut.tgz", "w:gz")
    whole = archive.read_bytes()
    for length in (3, len(whole) // 2, len(whole) - 1):
        archive.write_bytes(whole[:length])
        with pytest.raises(DataError, match=r"cut\.tgz: cannot be read"):
            find_images(archive, tmp_path / "scratch")


def test_an_absent_archive_is_told(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"absent\.tar: cannot be read"):
        find_images(tmp_path / "absent.tar", tmp_path / "scratch")


def test_the_same_bytes_under_two_numbers_are_found(folder: Path, tmp_path: Path) -> None:
    assert duplicates(find_images(folder, tmp_path / "scratch")) == [(3, 45)]


def test_a_file_that_is_gone_is_told_by_its_name(folder: Path, tmp_path: Path) -> None:
    images = find_images(folder, tmp_path / "scratch")
    (folder / "jpg" / "image_00012.jpg").unlink()
    with pytest.raises(DataError, match=r"image_00012\.jpg: cannot be read"):
        images[12].read()
