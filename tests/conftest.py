"""What many tests share: the real Caffe and the data sets, which a machine may lack, and digits."""

import os
import signal
from pathlib import Path

import pytest
from hypothesis import settings

from data_prep.digits import build_digits
from pycaffe_prune.engines.caffe.python import find_caffe_python
from pycaffe_prune.errors import EngineError

# No deadline: on a busy machine the first example pays for imports and caches.
settings.register_profile("ci", deadline=None)
settings.load_profile("ci")


def pytest_configure() -> None:
    # A shell starts what it runs in the background with SIGINT ignored, and children inherit that.
    if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
        signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.fixture(scope="session")
def caffe_python() -> Path:
    """A Python interpreter that can import the real Caffe."""
    try:
        return find_caffe_python().executable
    except EngineError as error:
        pytest.skip(str(error))


@pytest.fixture(scope="session")
def data_dir() -> Path:
    """The folder with the data sets' original files."""
    named = os.environ.get("PYCAFFE_PRUNE_DATA")
    if not named:
        pytest.skip("PYCAFFE_PRUNE_DATA is not set: it names the folder with the data sets")
    folder = Path(named)
    if not folder.is_dir():
        pytest.skip(f"PYCAFFE_PRUNE_DATA={named}: no such folder")
    return folder


@pytest.fixture(scope="session")
def mnist_source(data_dir: Path) -> Path:
    """The folder with MNIST's four original files."""
    folder = data_dir / "mnist"
    if not folder.is_dir():
        pytest.skip(f"{folder}: no such folder; MNIST's four files belong there")
    return folder


@pytest.fixture(scope="session")
def digits(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """LMDBs of 1,500 and 297 real digits."""
    folder = tmp_path_factory.mktemp("digits")
    build_digits(folder)
    return folder
