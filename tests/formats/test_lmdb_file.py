import random
import shutil
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import lmdb
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pycaffe_prune.errors import DataError
from pycaffe_prune.formats.lmdb_file import LmdbFile, Record

CASES = Path(__file__).parents[1] / "cases"
FORMAT = {"lib_version": 0} if hasattr(lmdb.Environment, "lib_version") else {}


def write(folder: Path, records: dict[bytes, bytes]) -> Path:
    shutil.rmtree(folder, ignore_errors=True)
    with (
        lmdb.open(str(folder), sync=False, lock=False, map_size=2**26, **FORMAT) as environment,
        environment.begin(write=True) as transaction,
    ):
        for key, value in records.items():
            transaction.put(key, value)
    return folder


def read(folder: Path, first: int = 0) -> list[Record]:
    with LmdbFile(folder) as database:
        return list(database.records(first))


@settings(max_examples=25)
@given(
    records=st.dictionaries(
        st.binary(min_size=1, max_size=40),
        st.binary(max_size=20) | st.integers(0, 20_000).map(bytes),
        max_size=40,
    ),
    copies=st.integers(1, 60),
)
def test_records_are_those_of_lmdb_itself(
    records: dict[bytes, bytes], copies: int, tmp_path_factory: pytest.TempPathFactory
) -> None:
    folder = tmp_path_factory.getbasetemp() / "law_lmdb"
    many = {key + b"%d" % copy: value for key, value in records.items() for copy in range(copies)}
    write(folder, many)
    assert read(folder) == sorted(many.items())
    with LmdbFile(folder) as database:
        assert database.entries == len(many)
    assert read(folder, len(many) // 2) == sorted(many.items())[len(many) // 2 :]


def test_the_newest_transaction_counts(tmp_path: Path) -> None:
    folder = write(tmp_path / "l", {b"%04d" % key: b"old" for key in range(500)})
    for value in (b"new", b"newest"):
        with (
            lmdb.open(str(folder), lock=False, map_size=2**26) as environment,
            environment.begin(write=True) as transaction,
        ):
            for key in range(0, 500, 3):
                transaction.put(b"%04d" % key, value)
            transaction.delete(b"0001")
    found = dict(read(folder))
    assert len(found) == 499
    assert (found[b"0000"], found[b"0002"]) == (b"newest", b"old")


def test_threads_may_read_one_and_no_file_is_made(tmp_path: Path) -> None:
    folder = write(tmp_path / "l", {b"%04d" % key: bytes(3000) for key in range(50)})
    files = sorted(folder.iterdir())
    with LmdbFile(folder) as database, ThreadPoolExecutor(4) as pool:
        found = list(pool.map(lambda first: len(list(database.records(first))), range(50)))
    assert found == list(range(50, 0, -1))
    assert sorted(folder.iterdir()) == files


@pytest.mark.parametrize("case", ["crash7", "none", "empty", "text", "cut"])
def test_what_is_no_whole_lmdb_is_one_sentence(tmp_path: Path, case: str) -> None:
    folder = write(tmp_path / "l", {b"%04d" % key: bytes(3000) for key in range(50)})
    file = folder / "data.mdb"
    whole = file.read_bytes()
    match case:
        case "crash7":
            shutil.copy(CASES / "hostile/lmdb/crash7.mdb", file)
        case "none":
            file.unlink()
        case "empty":
            file.write_bytes(b"")
        case "text":
            file.write_bytes(b"text" * 4096)
        case "cut":
            file.write_bytes(whole[:-4096])
    with pytest.raises(DataError, match=f"^{folder}: cannot be read as an LMDB"):
        read(folder)


def test_a_file_that_is_cut_while_it_is_read_is_one_sentence(tmp_path: Path) -> None:
    folder = write(tmp_path / "l", {b"%04d" % key: bytes(3000) for key in range(50)})
    with LmdbFile(folder) as database:
        (folder / "data.mdb").write_bytes((folder / "data.mdb").read_bytes()[:20480])
        with pytest.raises(DataError, match="truncated while it is read"):
            list(database.records())


def test_damaged_bytes_are_read_or_refused(tmp_path: Path) -> None:
    folder = write(tmp_path / "l", {b"%04d" % key: bytes(key * 20) for key in range(300)})
    file = folder / "data.mdb"
    whole = file.read_bytes()
    pick = random.Random(5)  # noqa: S311 -- no secret
    used = [at for at in range(len(whole)) if whole[at]]  # heads, keys, places and page numbers
    refused = 0
    for _ in range(150):
        damaged = bytearray(whole)
        for at in pick.choices(used, k=pick.randint(1, 4)):
            damaged[at] = pick.randrange(256)
        file.write_bytes(damaged)
        try:
            read(folder)
        except DataError as error:
            assert str(error).startswith(f"{folder}: cannot be read as an LMDB")  # noqa: PT017
            refused += 1
    assert 20 < refused < 150
