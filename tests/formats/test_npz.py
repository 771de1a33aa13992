import io
import random
import zipfile
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from pycaffe_prune.errors import FormatError
from pycaffe_prune.formats.npz import arrays_size, parse_npy, read_arrays, write_arrays, zipped_size

# The folder is the same for all examples: each one writes its file anew.
one_folder = settings(suppress_health_check=[HealthCheck.function_scoped_fixture])

dtypes = st.sampled_from(["<f4", ">f4", "<f8", "<f2", "|u1", "|i1", "<i8", ">u2", "|b1"])
arrays = hnp.arrays(dtypes, hnp.array_shapes(min_dims=0, max_dims=4, min_side=0, max_side=4))
names = st.text(st.characters(exclude_characters="\0", exclude_categories=["Cs"]))
members = st.dictionaries(names, arrays, max_size=4)
WHAT = "a test archive"


@pytest.mark.usefixtures("no_fsync")
@one_folder
@given(content=members)
def test_what_is_written_is_read_back_by_us_and_by_numpy(
    tmp_path: Path, content: dict[str, np.ndarray]
) -> None:
    path = tmp_path / "a.npz"
    with path.open("wb") as file:
        write_arrays(file, content.items())
    assert arrays_size(content.items(), zipfile.ZIP_STORED) == path.stat().st_size
    found = read_arrays(path, WHAT)
    assert list(found) == list(content)
    with zipfile.ZipFile(path) as archive:
        theirs = [np.load(io.BytesIO(archive.read(info))) for info in archive.infolist()]
    for ours, other, expected in zip(found.values(), theirs, content.values(), strict=True):
        for array in (ours, other):
            assert array.dtype == expected.dtype
            assert array.shape == expected.shape
            assert array.tobytes() == expected.tobytes()


@one_folder
@given(array=arrays, compressed=st.booleans(), order=st.sampled_from("CF"))
def test_what_numpy_saves_is_read(
    tmp_path: Path, array: np.ndarray, compressed: bool, order: str
) -> None:
    save = np.savez_compressed if compressed else np.savez
    save(tmp_path / "a.npz", x=np.array(array, order=order))
    found = read_arrays(tmp_path / "a.npz", WHAT)["x"]
    assert found.dtype == array.dtype
    assert found.shape == array.shape
    assert found.tobytes() == array.tobytes()
    assert not found.flags.writeable


def test_the_deflated_size_is_that_of_numpys_own_archive(tmp_path: Path) -> None:
    content = {"a": np.zeros(10_000, np.float32), "b": np.arange(10_000)}
    np.savez_compressed(tmp_path / "a.npz", **content)
    theirs = (tmp_path / "a.npz").stat().st_size
    assert abs(arrays_size(content.items(), zipfile.ZIP_DEFLATED) - theirs) < 100


def test_the_zipped_size_is_that_of_an_archive_with_the_file(tmp_path: Path) -> None:
    (tmp_path / "a.bin").write_bytes(bytes(100_000) + bytes(range(256)) * 40)
    with zipfile.ZipFile(tmp_path / "a.zip", "w", zipfile.ZIP_DEFLATED) as archive:
        archive.write(tmp_path / "a.bin", "a.bin")
    assert abs(zipped_size(tmp_path / "a.bin") - (tmp_path / "a.zip").stat().st_size) < 50


def zip_of(path: Path, *content: tuple[str, bytes]) -> None:
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, data in content:
            archive.writestr(name, data)


def npy(array: np.ndarray) -> bytes:
    file = io.BytesIO()
    np.save(file, array, allow_pickle=True)
    return file.getvalue()


def header(text: str) -> bytes:
    return b"\x93NUMPY\x01\x00" + len(text).to_bytes(2, "little") + text.encode()


@pytest.mark.parametrize(
    ("content", "sentence"),
    [
        (npy(np.array([{"a": 1}], object)), "holds no plain numbers"),
        (npy(np.array(["text"])), "holds no plain numbers"),
        (npy(np.zeros(2, [("a", "f4")])), "holds no plain numbers"),
        (npy(np.zeros(2, np.complex64)), "holds no plain numbers"),
        (npy(np.zeros(5))[:-1], r"has shape \(5,\) of float64 but holds 39 bytes"),
        (npy(np.zeros(5)) + b"x", "but holds 41 bytes"),
        (
            header("{'descr': '<f4', 'fortran_order': False, 'shape': (9223372036854775807,)}"),
            "bytes",
        ),
        (
            header("{'descr': '<f4', 'fortran_order': False, 'shape': (0, " + "1, " * 99 + ")}"),
            "which NumPy refuses",
        ),
        (header("{'descr': '<f4', 'fortran_order': False, 'shape': (-1,)}"), "no plain numbers"),
        (header("__import__('os').abort()"), "holds no plain numbers"),
        (b"\x93NUMPY\x09\x00\x00\x00", "is no NumPy array"),
        (b"\x93NUMPY", "is no NumPy array"),
        (b"", "is no NumPy array"),
    ],
)
def test_what_is_no_array_of_numbers_is_refused(
    tmp_path: Path, content: bytes, sentence: str
) -> None:
    with pytest.raises(FormatError, match=sentence):
        parse_npy(memoryview(content))
    zip_of(tmp_path / "a.npz", ("x.npy", content))
    with pytest.raises(FormatError, match=f"^{tmp_path}/a.npz: member 'x.npy' .*{sentence}"):
        read_arrays(tmp_path / "a.npz", WHAT)


@pytest.mark.parametrize("name", ["x", "x.npy.txt", "folder/"])
def test_members_that_are_no_arrays_are_refused(tmp_path: Path, name: str) -> None:
    zip_of(tmp_path / "a.npz", (name, b""), ("array.npy", b""))
    with pytest.raises(FormatError, match=f"has a member '{name}', which is no array"):
        read_arrays(tmp_path / "a.npz", WHAT)


def test_a_member_that_is_there_twice_is_refused(tmp_path: Path) -> None:
    array = npy(np.zeros(2))
    with pytest.warns(UserWarning, match="Duplicate name"):
        zip_of(tmp_path / "a.npz", ("x.npy", array), ("x.npy", array))
    with pytest.raises(FormatError, match=r"'x\.npy', which is no array or there twice"):
        read_arrays(tmp_path / "a.npz", WHAT)


def test_an_impossible_size_is_refused_before_memory_is_taken(tmp_path: Path) -> None:
    path = tmp_path / "a.npz"
    zip_of(path, ("x.npy", npy(np.zeros(2))))
    content = bytearray(path.read_bytes())
    at = content.index(b"PK\x01\x02") + 24
    content[at : at + 4] = (2**32 - 2).to_bytes(4, "little")
    path.write_bytes(content)
    with pytest.raises(FormatError, match=r"a member 'x\.npy' of an impossible size"):
        read_arrays(path, WHAT)


def test_a_changed_value_is_found_by_its_checksum(tmp_path: Path) -> None:
    path = tmp_path / "a.npz"
    with path.open("wb") as file:
        write_arrays(file, {"x": np.full(9, 7, np.uint8)}.items())
    path.write_bytes(path.read_bytes().replace(b"\x07\x07", b"\x07\x08", 1))
    with pytest.raises(FormatError, match=f"^{path}: cannot be read .*CRC.*; a test archive is"):
        read_arrays(path, WHAT)


@pytest.mark.parametrize("content", [b"", b"text", b"PK\x03\x04", bytes(100)])
def test_other_files_are_refused(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "a.npz").write_bytes(content)
    with pytest.raises(FormatError, match=f"^{tmp_path}/a.npz: .*; a test archive is needed$"):
        read_arrays(tmp_path / "a.npz", WHAT)


def test_damaged_bytes_are_read_or_refused(tmp_path: Path) -> None:
    path = tmp_path / "a.npz"
    np.savez_compressed(path, x=np.arange(20), y=np.ones((2, 3), np.float32))
    content = path.read_bytes()
    pick = random.Random(6)  # noqa: S311 -- no secret
    refused = 0
    for number in range(2000):
        damaged = bytearray(content[: pick.randrange(1, len(content))] if number % 4 else content)
        for at in pick.choices(range(len(damaged)), k=pick.randint(0, 4)):
            damaged[at] = pick.randrange(256)
        path.write_bytes(damaged)
        try:
            found = read_arrays(path, WHAT)
        except FormatError:
            refused += 1
        else:
            assert all(array.dtype.kind in "biuf" for array in found.values())
    assert 1000 < refused < 2000
