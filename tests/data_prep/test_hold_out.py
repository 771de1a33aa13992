"""Every record goes into one of both LMDBs, as it is; those held out are evenly spread."""

import tempfile
from itertools import pairwise
from pathlib import Path

import lmdb
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from data_prep.hold_out import hold_out
from pycaffe_prune.errors import DataError
from pycaffe_prune.formats.lmdb_file import LmdbFile


def write(folder: Path, values: list[bytes]) -> None:
    folder.mkdir()
    with lmdb.open(str(folder), lock=False) as environment, environment.begin(write=True) as txn:
        for place, value in enumerate(values):
            txn.put(b"%08d" % place, value)


def records(folder: Path) -> list[tuple[bytes, bytes]]:
    with LmdbFile(folder) as database:
        return list(database.records())


@settings(max_examples=15, deadline=None)
@given(st.data())
def test_each_record_goes_into_one_of_both_as_it_is(data: st.DataObject) -> None:
    count = data.draw(st.integers(2, 600), "records")
    images = data.draw(st.integers(1, count - 1), "held out")
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        values = [b"%d" % place * (1 + place % 40) for place in range(count)]
        write(folder / "all", values)
        hold_out(folder / "all", folder / "train", folder / "held", images)
        whole, held = records(folder / "all"), records(folder / "held")
        assert len(held) == images
        assert sorted(held + records(folder / "train")) == whole
        places = [int(key) for key, _ in held]
        gaps = {after - before for before, after in pairwise(places)}
        assert max(gaps, default=0) - min(gaps, default=0) <= 1


@pytest.mark.parametrize("images", [0, 3])
def test_some_images_have_to_stay_and_some_to_go(tmp_path: Path, images: int) -> None:
    write(tmp_path / "all", [b"a", b"b", b"c"])
    with pytest.raises(DataError, match=rf"{images} of its 3 images cannot be held out"):
        hold_out(tmp_path / "all", tmp_path / "train", tmp_path / "held", images)
    assert [path.name for path in tmp_path.iterdir()] == ["all"]
