"""environment.yml cannot be tried without conda; what can be checked without, is checked here."""

import ast
import operator
import re
import sys
from pathlib import Path

import pytest
import yaml

from pycaffe_prune.engines.caffe import python as module
from pycaffe_prune.engines.caffe.python import CONDA_ENVIRONMENT, probe

ROOT = Path(__file__).parents[2]
WORKER = sorted((ROOT / "pycaffe_prune/engines/caffe/caffe_worker").glob("*.py"))
SOURCES = {path.name: path.read_text() for path in WORKER} | {"the probe": module._PROBE}

# The conda packages whose names are not those of what is imported.
PACKAGES = {"cv2": "opencv", "google": "protobuf", "lmdb": "python-lmdb"}

CONDA_FORGE_HAS_CAFFE_FOR = [(3, 6), (3, 7), (3, 8)]

Version = tuple[int, ...]


def environment() -> dict[str, object]:
    loaded = yaml.safe_load((ROOT / "environment.yml").read_text())
    assert isinstance(loaded, dict)
    return loaded


def pins() -> dict[str, str]:
    """Each package's name with what it asks of its version."""
    dependencies = environment()["dependencies"]
    assert isinstance(dependencies, list)
    matches = [re.fullmatch(r"([\w-]+)(.*)", package) for package in dependencies]
    return {match[1]: match[2] for match in matches if match}


def admits(pin: str, version: Version) -> bool:
    """Whether a pin as conda reads it (``=`` also takes whatever follows) admits a version."""
    asks = {
        "": lambda there, asked: True,  # noqa: ARG005  (as those below)
        "=": lambda there, asked: there[: len(asked)] == asked,
        "==": operator.eq,
        ">=": operator.ge,
        "<": operator.lt,
    }
    return all(
        asks[part.rstrip("0123456789.")](version, tuple(map(int, re.findall(r"\d+", part))))
        for part in pin.split(",")
    )


def worker_runs_under() -> list[Version]:
    docstring = ast.get_docstring(ast.parse(SOURCES["__init__.py"])) or ""
    found = re.search(r"Python 3\.(\d+) to 3\.(\d+)", docstring)
    assert found is not None
    return [(3, minor) for minor in range(int(found[1]), int(found[2]) + 1)]


def imported(source: str) -> set[str]:
    """The packages of others that a source imports, at its top or anywhere in it."""
    names = set()
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            names |= {alias.name.split(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.level == 0:
            names.add((node.module or "").split(".")[0])
    return names - sys.stdlib_module_names - {"caffe_worker"}


def test_pins_are_read_as_conda_reads_them() -> None:
    assert admits("", (1, 2))
    assert admits("=3.8", (3, 8, 20))
    assert not admits("=3.8", (3, 9))
    assert not admits("==3.8", (3, 8, 20))
    assert admits(">=1.16,<2", (1, 24))
    assert not admits(">=1.16,<2", (2, 0))
    assert not admits(">=1.16,<2", (1, 9))


def test_it_has_the_name_that_is_looked_for() -> None:
    assert environment()["name"] == CONDA_ENVIRONMENT


def test_everything_comes_from_conda_forge_alone() -> None:
    assert environment()["channels"] == ["conda-forge", "nodefaults"]


def test_all_that_belongs_in_it_is_in_it() -> None:
    assert {"python", "caffe", "numpy", "protobuf", "python-lmdb", "opencv", "h5py"} == set(pins())
    assert admits(pins()["caffe"], (1, 0))


def test_its_python_is_one_of_the_workers_and_has_a_caffe() -> None:
    admitted = [(3, minor) for minor in range(30) if admits(pins()["python"], (3, minor))]
    assert admitted
    assert set(admitted) <= set(worker_runs_under())
    assert set(admitted) <= set(CONDA_FORGE_HAS_CAFFE_FOR)


@pytest.mark.parametrize("name", SOURCES)
def test_what_runs_in_it_is_of_its_python(name: str) -> None:
    for version in worker_runs_under():
        ast.parse(SOURCES[name], feature_version=version)


@pytest.mark.parametrize("name", SOURCES)
def test_what_runs_in_it_imports_only_what_it_has(name: str) -> None:
    assert {PACKAGES.get(package, package) for package in imported(SOURCES[name])} <= set(pins())


def test_imports_are_seen_wherever_they_are() -> None:
    source = (
        "import os, cv2\nfrom .loop import run\ndef f():\n    from google.protobuf import message\n"
    )
    assert imported(source) == {"cv2", "google"}
    assert {"caffe", "numpy"} <= set().union(*map(imported, SOURCES.values()))


def test_numpy_is_of_the_age_that_caffe_was_compiled_for() -> None:
    assert admits(pins()["numpy"], (1, 19))
    assert not admits(pins()["numpy"], (2, 0))


@pytest.mark.real_caffe
def test_pins_fit_what_pycaffes_sources_ask_for(caffe_python: Path) -> None:
    folder = probe(caffe_python).caffe_path
    for path in folder.glob("*.py"):
        gone = re.findall(r"\bnp\.(?:bool|complex|float|int|object|str)\b", path.read_text())
        if gone:  # NumPy 1.24 took these names away
            assert not admits(pins()["numpy"], (1, 24)), f"{path}: {gone}"
    generated = (folder / "proto/caffe_pb2.py").read_text()
    if "_descriptor.FieldDescriptor(" in generated:  # as protoc wrote it before 3.19
        assert not admits(pins()["protobuf"], (4, 21))
    assert admits(pins()["protobuf"], (3, 12))
