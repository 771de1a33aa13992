from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import lmdb
import pytest

from pycaffe_prune.engines.lmdb_files import opened_lmdb
from tests.engines.torch_engine.data.datums import write_lmdb


def test_many_readers_share_one_environment_that_the_last_one_closes(tmp_path: Path) -> None:
    folder = write_lmdb(tmp_path / "lmdb", [b"one", b"two"])

    with opened_lmdb(folder) as first:
        with opened_lmdb(tmp_path / "other" / ".." / "lmdb") as second:
            assert second is first
        assert first.stat()["entries"] == 2

    lmdb.open(str(folder), readonly=True, lock=False).close()  # refused if it were open still


def test_threads_may_come_and_go(tmp_path: Path) -> None:
    folder = write_lmdb(tmp_path / "lmdb", [b"one"])

    def read(_: int) -> bytes:
        with opened_lmdb(folder) as environment, environment.begin() as transaction:
            return bytes(transaction.get(b"00000000"))

    with ThreadPoolExecutor(4) as pool:
        assert set(pool.map(read, range(200))) == {b"one"}


def test_no_file_is_made(tmp_path: Path) -> None:
    folder = write_lmdb(tmp_path / "lmdb", [b"one"])
    with opened_lmdb(folder):
        assert [path.name for path in folder.iterdir()] == ["data.mdb"]


def test_a_truncated_file_is_refused_and_not_left_open(tmp_path: Path) -> None:
    folder = write_lmdb(tmp_path / "lmdb", [bytes(5000) for _ in range(9)])
    whole = (folder / "data.mdb").read_bytes()
    (folder / "data.mdb").write_bytes(whole[:-4096])

    with pytest.raises(lmdb.Error, match="are needed"), opened_lmdb(folder):
        pass

    (folder / "data.mdb").write_bytes(whole)
    with opened_lmdb(folder) as environment:
        assert environment.stat()["entries"] == 9
