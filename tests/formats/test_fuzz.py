"""Each reader on damaged files, shortly; `bench/fuzz.py` does the same for an hour."""

import os
import random
import sys
import tempfile
from collections.abc import Iterator
from importlib import import_module
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from pycaffe_prune.errors import PruneError

BENCH = Path(__file__).parents[2] / "bench"


@pytest.fixture(scope="module")
def bench() -> Iterator[tuple[list[Any], Any]]:
    sys.path.insert(0, str(BENCH))
    try:
        with tempfile.TemporaryDirectory() as folder:
            formats = import_module("fuzz_corpus").make_formats(Path(folder))
        yield formats, import_module("fuzz_harm").harmed
    finally:
        sys.path.remove(str(BENCH))


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    folder = tmp_path_factory.mktemp("fuzz")
    before = os.environ.get("PYCAFFE_PRUNE_CACHE")
    os.environ["PYCAFFE_PRUNE_CACHE"] = str(folder / "cache")
    yield folder
    del os.environ["PYCAFFE_PRUNE_CACHE"]
    if before is not None:
        os.environ["PYCAFFE_PRUNE_CACHE"] = before


def put(folder: Path, one: Any, content: bytes) -> Path:
    place = folder / one.name
    place.mkdir(exist_ok=True)
    for name, beside in one.beside.items():
        (place / name).write_bytes(beside)
    (place / one.file).write_bytes(content)
    return place / one.file


def test_honest_files_are_read(bench: tuple[list[Any], Any], folder: Path) -> None:
    for one in bench[0]:
        one.read(put(folder, one, one.content))


@settings(max_examples=200, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(number=st.integers(0, 999), seed=st.integers(0, 2**32), is_other=st.integers(0, 9).map(bool))
def test_damaged_files_are_read_or_refused_in_one_sentence(
    bench: tuple[list[Any], Any], folder: Path, number: int, seed: int, is_other: bool
) -> None:
    formats = [one for one in bench[0] if one.is_slow != is_other]
    one = formats[number % len(formats)]
    path = put(folder, one, bench[1](one, random.Random(seed)))  # noqa: S311 -- no secret
    try:
        one.read(path)
    except PruneError as error:
        assert str(error).strip()  # noqa: PT017
