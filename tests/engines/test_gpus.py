import ctypes
from pathlib import Path

import pytest

from pycaffe_prune.engines.gpus import (
    Gpu,
    driver_cuda_version,
    find_gpus,
    parse_nvidia_smi,
    runs_on,
)


def nvidia_smi(folder: Path, monkeypatch: pytest.MonkeyPatch, script: str) -> None:
    program = folder / "nvidia-smi"
    program.write_text(f"#!/bin/sh\n{script}\n")
    program.chmod(0o755)
    monkeypatch.setenv("PATH", str(folder))


def test_a_line_is_a_gpu_and_its_name_may_have_commas() -> None:
    text = "NVIDIA A100, 80GB, 535.54.03, 81920, 8.0\nTesla T4, 535.54.03, 15360, 7.5\n"
    assert parse_nvidia_smi(text) == [
        Gpu(
            name="NVIDIA A100, 80GB",
            driver="535.54.03",
            memory_mib=81920,
            compute_capability="8.0",
        ),
        Gpu(name="Tesla T4", driver="535.54.03", memory_mib=15360, compute_capability="7.5"),
    ]
    assert parse_nvidia_smi("") == parse_nvidia_smi("No devices were found\n") == []


def test_what_it_has_no_answer_to_is_none() -> None:
    (gpu,) = parse_nvidia_smi("NVIDIA GB10, 580.95, [N/A], [N/A]\n")
    assert (gpu.driver, gpu.memory_mib, gpu.compute_capability) == ("580.95", None, None)


def test_an_older_nvidia_smi_is_asked_for_what_it_knows(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    refusal = "echo 'Field \"compute_cap\" is not a valid field to query.'; exit 2"
    nvidia_smi(
        tmp_path,
        monkeypatch,
        f'case "$*" in *compute_cap*) {refusal};; esac\necho "Tesla K80, 418.87, 11441"',
    )
    assert find_gpus() == [
        Gpu(name="Tesla K80", driver="418.87", memory_mib=11441, compute_capability=None)
    ]


def test_an_nvidia_smi_that_fails_or_is_not_there_means_no_gpu(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    nvidia_smi(tmp_path, monkeypatch, "echo 'no, driver, sorry, now'; exit 9")
    assert find_gpus() == []
    (tmp_path / "nvidia-smi").unlink()
    assert find_gpus() == []


class Driver:
    """A library that answers as NVIDIA's does."""

    def __init__(self, status: int, version: int) -> None:
        self.status = status
        self.version = version

    def cuDriverGetVersion(self, pointer: object) -> int:  # noqa: N802  (its name)
        ctypes.cast(pointer, ctypes.POINTER(ctypes.c_int))[0] = self.version
        return self.status


@pytest.mark.parametrize(
    ("status", "version", "cuda"),
    [
        (0, 12020, "12.2"),
        (0, 11000, "11.0"),
        (0, 10020, "10.2"),
        (0, 0, None),
        (34, 12020, None),  # CUDA_ERROR_STUB_LIBRARY: the toolkit's library for linking
    ],
)
def test_the_driver_tells_its_cuda(
    monkeypatch: pytest.MonkeyPatch, status: int, version: int, cuda: str | None
) -> None:
    monkeypatch.setattr(ctypes, "CDLL", lambda _: Driver(status, version))
    assert driver_cuda_version() == cuda


def test_a_library_that_is_not_there_or_no_driver_means_none() -> None:
    assert driver_cuda_version("libno-such-driver.so.1") is None
    assert driver_cuda_version("libc.so.6") is None


@pytest.mark.parametrize(
    ("runtime", "driver", "runs"),
    [
        ("11.2", "11.0", True),  # one major version: any of its drivers
        ("11", "11.0", True),
        ("11.8", "12.2", True),
        ("12.0", "11.8", False),
        ("10.2", "10.1", False),  # before CUDA 11 the driver had to be as new
        ("10.2", "10.2", True),
        ("9.2", "10.0", True),
        ("8.0", "11.0", True),
    ],
)
def test_which_driver_runs_what(runtime: str, driver: str, runs: bool) -> None:
    assert runs_on(runtime, driver) is runs
