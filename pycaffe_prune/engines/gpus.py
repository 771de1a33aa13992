"""Which NVIDIA GPUs are seen here, and which CUDA their driver can run."""

import ctypes
import subprocess
from collections.abc import Sequence

from pydantic import BaseModel

__all__ = ["NO_DRIVER", "Gpu", "driver_cuda_version", "find_gpus", "parse_nvidia_smi", "runs_on"]

# InternalThread::StartInternalThread (src/caffe/internal_thread.cpp) asks which device is current.
NO_DRIVER = (
    "this Caffe was built with CUDA, and no GPU's driver is visible here, which its data layers "
    "ask for even on the CPU; in a container give it the GPU (docker run --gpus all), or name a "
    "Caffe built for the CPU with --caffe-python"
)

_FIELDS = ("name", "driver_version", "memory.total", "compute_cap")


class Gpu(BaseModel):
    """One NVIDIA GPU."""

    name: str
    driver: str
    memory_mib: int | None
    """None where GPU and machine share their memory."""
    compute_capability: str | None
    """As ``9.0``; None where nvidia-smi is too old to be asked."""


def find_gpus() -> list[Gpu]:
    """Return the GPUs that nvidia-smi sees: none without it, none when it fails.

    nvidia-smi lists them all, also those that ``$CUDA_VISIBLE_DEVICES`` hides from programs.
    """
    # An older nvidia-smi refuses the whole question for compute_cap, which it does not know.
    for fields in (_FIELDS, _FIELDS[:-1]):
        try:
            done = subprocess.run(
                ["nvidia-smi", f"--query-gpu={','.join(fields)}", "--format=csv,noheader,nounits"],
                capture_output=True,
                text=True,
                errors="replace",
                check=False,
                timeout=30,
            )
        except (OSError, subprocess.TimeoutExpired):
            return []
        if done.returncode == 0:
            return parse_nvidia_smi(done.stdout, fields)
    return []


def parse_nvidia_smi(text: str, fields: Sequence[str] = _FIELDS) -> list[Gpu]:
    """Read what ``nvidia-smi --query-gpu=FIELDS --format=csv,noheader,nounits`` prints.

    Args:
        text: One GPU a line; a name may have commas in it.
        fields: What was asked for, ``name`` first.
    """
    gpus = []
    for line in text.splitlines():
        values = [value.strip() for value in line.rsplit(",", len(fields) - 1)]
        if len(values) != len(fields):
            continue
        found = dict(zip(fields, values, strict=True))
        memory, capability = found["memory.total"], found.get("compute_cap", "")
        gpus.append(
            Gpu(
                name=found["name"],
                driver=found["driver_version"],
                # Where there is nothing to be told, it says [N/A] or [Not Supported].
                memory_mib=int(memory) if memory.isdecimal() else None,
                compute_capability=capability if capability[:1].isdecimal() else None,
            )
        )
    return gpus


def driver_cuda_version(library: str = "libcuda.so.1") -> str | None:
    """Return the newest CUDA that the driver here can run, as ``12.2``; None without a driver.

    The driver's own library is asked, which a container has as soon as it is given a GPU, with or
    without nvidia-smi. The library that CUDA's toolkit has for linking alone counts as no driver.
    """
    version = ctypes.c_int(0)
    try:
        status = ctypes.CDLL(library).cuDriverGetVersion(ctypes.byref(version))
    except (OSError, AttributeError):
        return None
    if status != 0 or version.value <= 0:
        return None
    return f"{version.value // 1000}.{version.value % 1000 // 10}"


def runs_on(runtime: str, driver: str) -> bool:
    """Return whether a program built with one CUDA works with a driver for another.

    From CUDA 11 on, a driver for any CUDA of the same major version will do; before, it had to be
    as new as the program's CUDA.

    Args:
        runtime: The program's CUDA, as ``11.2``, or ``11`` where no more is known.
        driver: The newest that the driver can run (see `driver_cuda_version`).
    """
    needed, there = (tuple(map(int, version.split("."))) for version in (runtime, driver))
    return there[0] >= needed[0] if needed[0] >= 11 else there >= needed
