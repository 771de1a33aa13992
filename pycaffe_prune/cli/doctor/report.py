"""What ``caffe-prune doctor`` reports, as data."""

from pathlib import Path
from typing import Literal

from pydantic import BaseModel

from pycaffe_prune.engines.gpus import Gpu
from pycaffe_prune.engines.torch.probe import TorchProbe

__all__ = ["CaffeReport", "Container", "DoctorReport", "Missing"]

Container = Literal["docker", "kubernetes", "podman"]


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
    cuda_version: str | None
    """The CUDA that it runs with, as ``11.2`` or ``11``."""
    features: dict[str, bool]


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
    container: Container | None
    """What this runs in; None: nothing of the kind that is known."""
    caffe: CaffeReport | None
    caffe_error: str | None
    torch: TorchProbe | None
    torch_error: str | None
    auto_engine: str | None
    """What ``--engine auto`` would take."""
    auto_reason: str
    auto_engine_on_gpu: str | None
    """What ``--engine auto --device cuda`` would take; None where nothing here points to a GPU."""
    auto_reason_on_gpu: str | None
    gpus: list[Gpu]
    driver_cuda_version: str | None
    """The newest CUDA that the driver can run; None: no driver."""
    cuda_visible_devices: str | None
    """``$CUDA_VISIBLE_DEVICES``: the GPUs that programs are shown; None: all."""
    data_folder: Path | None
    mnist_files: dict[str, bool]
    cache_folder: Path
    cache_free_bytes: int
    cache_is_writable: bool
    cpus: int
    usable_engines: list[str]
    missing: list[Missing]

    @property
    def cuda_builds(self) -> dict[str, str | None]:
        """The engines here that were built for the GPU, each with its CUDA where that is known."""
        builds: dict[str, str | None] = {}
        if self.caffe and self.caffe.gpu_build:
            builds["caffe"] = self.caffe.cuda_version
        if self.torch and self.torch.cuda_version:
            builds["torch"] = self.torch.cuda_version
        return builds
