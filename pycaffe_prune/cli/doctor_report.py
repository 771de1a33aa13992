"""What ``caffe-prune doctor`` reports, as data."""

import os
import platform
import re
import shutil
import subprocess
import sys
from importlib import metadata
from pathlib import Path

from pydantic import BaseModel

from pycaffe_prune import __version__
from pycaffe_prune.cache import cache_root
from pycaffe_prune.engines.caffe_python import CAFFE_PYTHON_VARIABLE, find_caffe_python, probe
from pycaffe_prune.engines.choice import EngineWish, decide
from pycaffe_prune.engines.torch_probe import (
    TORCH_REMEDY,
    TorchProbe,
    probe_torch,
    torch_is_installed,
)
from pycaffe_prune.errors import EngineError

__all__ = ["CaffeReport", "DoctorReport", "Gpu", "Missing", "make_report", "parse_nvidia_smi"]

_MNIST = (
    "train-images-idx3-ubyte",
    "train-labels-idx1-ubyte",
    "t10k-images-idx3-ubyte",
    "t10k-labels-idx1-ubyte",
)


class CaffeReport(BaseModel):
    """The real Caffe: where it is and what it is."""

    executable: Path
    origin: str
    version: str
    path: Path
    python_version: str
    numpy_version: str
    protobuf_version: str
    blas: str
    gpu_build: bool
    features: dict[str, bool]


class Gpu(BaseModel):
    """One NVIDIA GPU."""

    name: str
    driver: str


class Missing(BaseModel):
    """Something that is not here, and the command that gets it."""

    what: str
    remedy: str


class DoctorReport(BaseModel):
    """Everything that ``caffe-prune doctor`` found; ``--json`` prints it."""

    toolkit_version: str
    python_version: str
    python_executable: Path
    libraries: dict[str, str | None]
    caffe: CaffeReport | None
    caffe_error: str | None
    torch: TorchProbe | None
    torch_error: str | None
    auto_engine: str | None
    """What ``--engine auto`` would take."""
    auto_reason: str
    gpus: list[Gpu]
    data_folder: Path | None
    mnist_files: dict[str, bool]
    cache_folder: Path
    cache_free_bytes: int
    cpus: int
    usable_engines: list[str]
    missing: list[Missing]


def make_report(caffe_python: Path | None) -> DoctorReport:
    """Look at this machine.

    Args:
        caffe_python: The interpreter whose Caffe is looked at; None to look for one.
    """
    caffe, caffe_error = _caffe(caffe_python)
    torch, torch_error = _torch()
    auto_engine, auto_reason = _auto(caffe_python, caffe_error)
    libraries = _libraries()
    data = os.environ.get("PYCAFFE_PRUNE_DATA")
    mnist = _mnist_files(Path(data)) if data else {}
    return DoctorReport(
        toolkit_version=__version__,
        python_version=platform.python_version(),
        python_executable=Path(sys.executable),
        libraries=libraries,
        caffe=caffe,
        caffe_error=caffe_error,
        torch=torch,
        torch_error=torch_error,
        auto_engine=auto_engine,
        auto_reason=auto_reason,
        gpus=_gpus(),
        data_folder=Path(data) if data else None,
        mnist_files=mnist,
        cache_folder=cache_root(),
        cache_free_bytes=_free_bytes(cache_root()),
        cpus=len(os.sched_getaffinity(0)),
        usable_engines=[*(["caffe"] if caffe else []), *(["torch"] if torch else [])],
        missing=_missing(caffe, torch, libraries, mnist),
    )


def parse_nvidia_smi(text: str) -> list[Gpu]:
    """Read what ``nvidia-smi --query-gpu=name,driver_version --format=csv,noheader`` prints."""
    rows = [line.rsplit(",", 1) for line in text.splitlines() if "," in line]
    return [Gpu(name=name.strip(), driver=driver.strip()) for name, driver in rows]


def _caffe(explicit: Path | None) -> tuple[CaffeReport | None, str | None]:
    try:
        python = find_caffe_python(explicit)
        found = probe(python.executable)
    except EngineError as error:
        return None, str(error)
    report = CaffeReport(
        executable=python.executable,
        origin=python.origin,
        version=found.caffe_version,
        path=found.caffe_path,
        python_version=found.python_version,
        numpy_version=found.numpy_version,
        protobuf_version=found.protobuf_version,
        blas=found.blas,
        gpu_build=found.gpu_build,
        features=found.features.model_dump(),
    )
    return report, None


def _torch() -> tuple[TorchProbe | None, str | None]:
    try:
        return probe_torch(), None
    except EngineError as error:
        return None, str(error)


def _auto(explicit: Path | None, caffe_error: str | None) -> tuple[str | None, str]:
    if explicit is not None and caffe_error is not None:
        return None, caffe_error  # what is named is taken, and this one fails when it is used
    try:
        decision = decide(EngineWish(caffe_python=explicit))
    except EngineError as error:
        return None, str(error)
    return decision.name, decision.reason


def _libraries() -> dict[str, str | None]:
    """Return the version of each library that the toolkit declares; None where it is missing."""
    versions: dict[str, str | None] = {}
    for requirement in metadata.requires("pycaffe-prune") or []:
        name = re.match(r"[\w.-]+", requirement)
        if name and "extra ==" not in requirement:
            try:
                versions[name[0]] = metadata.version(name[0])
            except metadata.PackageNotFoundError:
                versions[name[0]] = None
    return versions


def _gpus() -> list[Gpu]:
    if shutil.which("nvidia-smi") is None:
        return []
    try:
        done = subprocess.run(
            ["nvidia-smi", "--query-gpu=name,driver_version", "--format=csv,noheader"],
            capture_output=True,
            text=True,
            check=False,
            timeout=30,
        )
    except (OSError, subprocess.TimeoutExpired):
        return []
    return parse_nvidia_smi(done.stdout) if done.returncode == 0 else []


def _mnist_files(data: Path) -> dict[str, bool]:
    folder = data / "mnist"
    return {
        f"mnist/{name}": any(
            (folder / f"{spelling}{ending}").is_file()
            for spelling in (name, name.replace("-idx", ".idx"))
            for ending in ("", ".gz")
        )
        for name in _MNIST
    }


def _free_bytes(folder: Path) -> int:
    """Return what is free on the disk where ``folder`` is or would be made."""
    existing = next(path for path in (folder.absolute() / "x").parents if path.exists())
    return shutil.disk_usage(existing).free


def _missing(
    caffe: CaffeReport | None,
    torch: TorchProbe | None,
    libraries: dict[str, str | None],
    mnist: dict[str, bool],
) -> list[Missing]:
    missing = []
    if caffe is None:
        # The variable is asked before the private prefix, so it would go on being in the way.
        first = f"unset {CAFFE_PYTHON_VARIABLE}; " if CAFFE_PYTHON_VARIABLE in os.environ else ""
        remedy = f"{first}caffe-prune doctor --install-caffe"
        missing.append(Missing(what="the real Caffe", remedy=remedy))
    if torch is None:
        what = "a PyTorch that can be imported" if torch_is_installed() else "PyTorch"
        missing.append(Missing(what=what, remedy=TORCH_REMEDY))
    absent = sorted(name for name, version in libraries.items() if version is None)
    if absent:
        missing.append(
            Missing(what=", ".join(absent), remedy=f"python -m pip install {' '.join(absent)}")
        )
    if not mnist or not all(mnist.values()):
        missing.append(
            Missing(
                what="MNIST's original files",
                remedy="caffe-prune data mnist --out data/mnist  (downloads them)",
            )
        )
    return missing
