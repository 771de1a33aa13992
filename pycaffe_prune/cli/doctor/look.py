"""Look at this machine for ``caffe-prune doctor``."""

import os
import platform
import re
import shutil
import sys
import tempfile
from collections.abc import Mapping
from importlib import metadata
from pathlib import Path

from pycaffe_prune import __version__
from pycaffe_prune.cache import cache_root
from pycaffe_prune.cli.doctor.missing import find_missing
from pycaffe_prune.cli.doctor.report import CaffeReport, Container, DoctorReport
from pycaffe_prune.engines.caffe.python import find_caffe_python, probe
from pycaffe_prune.engines.choice import EngineWish, decide
from pycaffe_prune.engines.gpus import driver_cuda_version, find_gpus
from pycaffe_prune.engines.torch.probe import TorchProbe, probe_torch
from pycaffe_prune.errors import EngineError

__all__ = ["container_kind", "make_report"]

_MNIST = (
    "train-images-idx3-ubyte",
    "train-labels-idx1-ubyte",
    "t10k-images-idx3-ubyte",
    "t10k-labels-idx1-ubyte",
)


def make_report(caffe_python: Path | None) -> DoctorReport:
    """Look at this machine.

    Args:
        caffe_python: The interpreter whose Caffe is looked at; None to look for one.
    """
    caffe, caffe_error = _caffe(caffe_python)
    torch, torch_error = _torch()
    auto_engine, auto_reason = _auto(caffe_python, caffe_error)
    data = os.environ.get("PYCAFFE_PRUNE_DATA")
    report = DoctorReport(
        toolkit_version=__version__,
        python_version=platform.python_version(),
        python_executable=Path(sys.executable),
        libraries=_libraries(),
        container=container_kind(Path("/"), os.environ),
        caffe=caffe,
        caffe_error=caffe_error,
        torch=torch,
        torch_error=torch_error,
        auto_engine=auto_engine,
        auto_reason=auto_reason,
        auto_engine_on_gpu=None,
        auto_reason_on_gpu=None,
        gpus=find_gpus(),
        driver_cuda_version=driver_cuda_version(),
        cuda_visible_devices=os.environ.get("CUDA_VISIBLE_DEVICES"),
        data_folder=Path(data) if data else None,
        mnist_files=_mnist_files(Path(data)) if data else {},
        cache_folder=cache_root(),
        cache_free_bytes=shutil.disk_usage(_nearest(cache_root())).free,
        cache_is_writable=_is_writable(_nearest(cache_root())),
        cpus=len(os.sched_getaffinity(0)),
        usable_engines=[],
        missing=[],
    )
    # Without a driver a Caffe built with CUDA has no data layers (see `gpus.NO_DRIVER`).
    if caffe and (report.driver_cuda_version or not caffe.gpu_build):
        report.usable_engines.append("caffe")
    if torch:
        report.usable_engines.append("torch")
    if report.gpus or report.driver_cuda_version or report.cuda_builds:
        engine, reason = _decide(EngineWish(caffe_python=caffe_python, device="cuda"))
        # The choice looks at how Caffe was built, not at PyTorch, which takes a second to import.
        if engine == "torch" and torch and torch.cuda_version is None:
            reason += "; but this PyTorch was built for the CPU only as well"
        report.auto_engine_on_gpu, report.auto_reason_on_gpu = engine, reason
    report.missing = find_missing(report)
    return report


def container_kind(root: Path, environment: Mapping[str, str]) -> Container | None:
    """Return what kind of container this is, told by the traces that each kind leaves.

    Args:
        root: The root of the file system.
        environment: The environment variables.
    """
    # First, since its pods are containers of one of the other kinds.
    if "KUBERNETES_SERVICE_HOST" in environment:
        return "kubernetes"
    if (root / "run/.containerenv").exists():
        return "podman"
    return "docker" if (root / ".dockerenv").exists() else None


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
        **found.model_dump(exclude={"caffe_version", "caffe_path"}),
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
    return _decide(EngineWish(caffe_python=explicit))


def _decide(wish: EngineWish) -> tuple[str | None, str]:
    try:
        decision = decide(wish)
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


def _nearest(folder: Path) -> Path:
    """Return ``folder``, or the nearest of its parents that is there, in which it would be made."""
    # os.access, for which a folder that may not be looked into is merely not there.
    return next(path for path in (folder.absolute() / "x").parents if os.access(path, os.F_OK))


def _is_writable(folder: Path) -> bool:
    # Tried out: neither mode bits nor os.access tell of file systems that refuse even root.
    try:
        with tempfile.TemporaryFile(dir=folder):
            return True
    except OSError:
        return False
