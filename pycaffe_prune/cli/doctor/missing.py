"""What ``caffe-prune doctor`` finds missing, and how to get it."""

import os
from collections.abc import Iterator

from pycaffe_prune.cli.doctor.report import DoctorReport, Missing
from pycaffe_prune.engines.caffe.python import CAFFE_PYTHON_VARIABLE
from pycaffe_prune.engines.gpus import runs_on
from pycaffe_prune.engines.torch.probe import TORCH_REMEDY, torch_is_installed

__all__ = ["find_missing"]

_NAMES = {"caffe": "Caffe", "torch": "PyTorch"}
_GPU_FOR_CONTAINER = {
    "docker": "docker run --gpus all IMAGE  (needs the NVIDIA Container Toolkit on the host)",
    "podman": "podman run --device nvidia.com/gpu=all IMAGE  (needs the NVIDIA Container Toolkit "
    "on the host)",
    "kubernetes": "ask for the resource nvidia.com/gpu in the pod's limits  (needs NVIDIA's device "
    "plugin; in plain Docker: docker run --gpus all, with the NVIDIA Container Toolkit)",
}


def find_missing(report: DoctorReport) -> list[Missing]:
    """Return what is not here, most important first; what ``report`` has as missing is not read."""
    return [*_engines(report), *_gpu(report), *_libraries(report), *_cache(report), *_data(report)]


def _engines(report: DoctorReport) -> Iterator[Missing]:
    if report.caffe is None:
        # The variable is asked before the private prefix, so it would go on being in the way.
        first = f"unset {CAFFE_PYTHON_VARIABLE}; " if CAFFE_PYTHON_VARIABLE in os.environ else ""
        yield Missing(what="the real Caffe", remedy=f"{first}caffe-prune doctor --install-caffe")
    if report.torch is None:
        what = "a PyTorch that can be imported" if torch_is_installed() else "PyTorch"
        yield Missing(what=what, remedy=TORCH_REMEDY)


def _gpu(report: DoctorReport) -> Iterator[Missing]:
    builds, driver = report.cuda_builds, report.driver_cuda_version
    built = " and ".join(
        f"{_NAMES[engine]} (built for CUDA{f' {cuda}' if cuda else ''})"
        for engine, cuda in builds.items()
    )
    seen = bool(report.gpus) or bool(report.torch and report.torch.cuda_available)
    if builds and driver is None and not seen:
        remedy = (
            _GPU_FOR_CONTAINER[report.container]
            if report.container
            else "install NVIDIA's driver, if this machine has such a GPU"
        )
        yield Missing(what=f"a GPU for {built}: no driver is visible here", remedy=remedy)
    elif builds and report.cuda_visible_devices in ("", "-1"):
        what = f"a GPU for {built}: $CUDA_VISIBLE_DEVICES hides them all"
        yield Missing(what=what, remedy="unset CUDA_VISIBLE_DEVICES")
    elif report.gpus and not builds and report.usable_engines:
        yield Missing(
            what="an engine that can use the GPU",
            remedy="install a PyTorch with CUDA (docs/dependencies.md), or name a Caffe built with "
            f"CUDA: ${CAFFE_PYTHON_VARIABLE} (docs/real-caffe.md)",
        )
    where = " on the host" if report.container else ""
    for engine, cuda in builds.items():
        if cuda and driver and not runs_on(cuda, driver):
            yield Missing(
                what=f"a driver for the CUDA {cuda} of {_NAMES[engine]}: this one runs CUDA "
                f"{driver} at most",
                remedy=f"update NVIDIA's driver{where}, or install a {_NAMES[engine]} built for "
                f"CUDA {driver} or older",
            )


def _libraries(report: DoctorReport) -> Iterator[Missing]:
    absent = sorted(name for name, version in report.libraries.items() if version is None)
    if absent:
        yield Missing(what=", ".join(absent), remedy=f"python -m pip install {' '.join(absent)}")


def _cache(report: DoctorReport) -> Iterator[Missing]:
    if not report.cache_is_writable:
        volume = f", or mount a volume at {report.cache_folder}" if report.container else ""
        yield Missing(
            what=f"a cache folder that can be written to: {report.cache_folder} cannot",
            remedy=f"export PYCAFFE_PRUNE_CACHE=FOLDER, one that can be{volume}",
        )


def _data(report: DoctorReport) -> Iterator[Missing]:
    if not report.mnist_files or not all(report.mnist_files.values()):
        yield Missing(
            what="MNIST's original files",
            remedy="caffe-prune data mnist --out data/mnist  (downloads them)",
        )
