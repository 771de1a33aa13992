from pathlib import Path

import pytest

from pycaffe_prune.cli.doctor.missing import find_missing
from pycaffe_prune.cli.doctor.report import CaffeReport, Container, DoctorReport
from pycaffe_prune.engines.gpus import Gpu
from pycaffe_prune.engines.torch.probe import TorchProbe

GPU = Gpu(name="H100", driver="535.54", memory_mib=81559, compute_capability="9.0")
ON_CPU = TorchProbe(version="2.13", cuda_version=None, cuda_available=False, gpus=[])


def caffe(*, cuda: str | None = None, gpu: bool | None = None) -> CaffeReport:
    return CaffeReport(
        executable=Path("/p/python"),
        origin="test",
        version="1.0.0",
        path=Path("/p/caffe"),
        python_version="3.9",
        numpy_version="1.19",
        protobuf_version="3.12",
        blas="openblas",
        gpu_build=cuda is not None if gpu is None else gpu,
        cuda_version=cuda,
        features={},
    )


def torch(cuda: str, *, gpus: list[str] | None = None) -> TorchProbe:
    return TorchProbe(version="2.13", cuda_version=cuda, cuda_available=bool(gpus), gpus=gpus or [])


def missing(**found: object) -> dict[str, str]:
    """What is missing where all is here but a GPU and a driver, with ``found`` besides."""
    report = DoctorReport(
        toolkit_version="0",
        python_version="3.11",
        python_executable=Path("/p/python"),
        libraries={"click": "8"},
        container=None,
        caffe=caffe(),
        caffe_error=None,
        torch=ON_CPU,
        torch_error=None,
        auto_engine="caffe",
        auto_reason="",
        auto_engine_on_gpu=None,
        auto_reason_on_gpu=None,
        gpus=[],
        driver_cuda_version=None,
        cuda_visible_devices=None,
        data_folder=Path("/data"),
        mnist_files={"mnist/x": True},
        cache_folder=Path("/cache"),
        cache_free_bytes=1,
        cache_is_writable=True,
        cpus=1,
        usable_engines=["caffe", "torch"],
        missing=[],
    )
    return {one.what: one.remedy for one in find_missing(report.model_copy(update=found))}


def test_a_machine_for_the_cpu_lacks_nothing() -> None:
    assert missing() == {}


@pytest.mark.parametrize(
    ("container", "remedy"),
    [
        (None, "install NVIDIA's driver"),
        ("docker", "docker run --gpus all"),
        ("podman", "podman run --device nvidia.com/gpu=all"),
        ("kubernetes", "nvidia.com/gpu in the pod's limits"),
    ],
)
def test_a_build_for_the_gpu_without_a_driver_is_told_how_to_get_one(
    container: Container | None, remedy: str
) -> None:
    found = missing(caffe=caffe(cuda="11.2"), torch=torch("12.1"), container=container)
    assert len(found) == 1
    for what, how in found.items():
        assert "Caffe (built for CUDA 11.2) and PyTorch (built for CUDA 12.1)" in what
        assert remedy in how
        assert ("NVIDIA Container Toolkit" in how) == (container is not None)


def test_a_gpu_that_anything_sees_is_not_missing() -> None:
    assert missing(caffe=caffe(cuda="11.2"), gpus=[GPU], driver_cuda_version="12.2") == {}
    assert missing(caffe=caffe(gpu=True), driver_cuda_version="12.2") == {}
    assert missing(torch=torch("12.1", gpus=["H100"])) == {}


@pytest.mark.parametrize(
    ("runtime", "driver", "enough"), [("11.2", "11.0", True), ("12", "11.8", False)]
)
def test_a_driver_too_old_for_an_engine_is_named_with_both_versions(
    runtime: str, driver: str, enough: bool
) -> None:
    for found in (
        missing(caffe=caffe(cuda=runtime), driver_cuda_version=driver),
        missing(torch=torch(runtime), driver_cuda_version=driver),
    ):
        assert (found == {}) == enough
        for what, how in found.items():
            assert f"CUDA {runtime} of" in what
            assert f"CUDA {driver} at most" in what
            assert "update NVIDIA's driver" in how
            assert "on the host" not in how
    found = missing(torch=torch("12.1"), driver_cuda_version="10.2", container="docker")
    assert ["on the host" in how for how in found.values()] == [True]


@pytest.mark.parametrize("hidden", ["", "-1"])
def test_gpus_that_are_all_hidden_are_told_apart_from_none(hidden: str) -> None:
    found = missing(
        torch=torch("12.1"),
        gpus=[GPU],
        driver_cuda_version="12.2",
        cuda_visible_devices=hidden,
    )
    assert list(found.values()) == ["unset CUDA_VISIBLE_DEVICES"]


def test_a_gpu_that_no_engine_can_use_is_told() -> None:
    found = missing(gpus=[GPU], driver_cuda_version="12.2")
    assert list(found) == ["an engine that can use the GPU"]


@pytest.mark.parametrize("container", [None, "docker"])
def test_a_cache_folder_that_cannot_be_written_to_is_told(container: Container | None) -> None:
    found = missing(cache_is_writable=False, container=container)
    assert len(found) == 1
    for what, how in found.items():
        assert "/cache" in what
        assert "PYCAFFE_PRUNE_CACHE" in how
        assert ("mount a volume at /cache" in how) == (container is not None)


def test_a_library_that_is_not_here_is_told_with_its_installation() -> None:
    assert missing(libraries={"click": "8", "lmdb": None}) == {"lmdb": "python -m pip install lmdb"}
