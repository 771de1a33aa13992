"""The table that ``caffe-prune doctor`` shows."""

from collections.abc import Iterator

from pycaffe_prune.cli.doctor.report import CaffeReport, DoctorReport
from pycaffe_prune.engines.gpus import Gpu
from pycaffe_prune.engines.torch.probe import TorchProbe

__all__ = ["rows", "size"]


def rows(report: DoctorReport) -> Iterator[tuple[str, str]]:
    """Yield what was looked for and what was found, a row of the table at a time."""
    yield "caffe-prune", report.toolkit_version
    yield "Python", f"{report.python_version} ({report.python_executable})"
    yield (
        "libraries",
        ", ".join(f"{name} {version or '—'}" for name, version in report.libraries.items()),
    )
    if report.container:
        yield "container", f"{report.container}: what is in none of its volumes is lost with it"
    if report.caffe:
        yield from _caffe_rows(report.caffe)
    else:
        yield "Caffe", f"no: {report.caffe_error}"
    yield "torch", _torch(report.torch) if report.torch else f"no: {report.torch_error}"
    yield from _choice_rows(report)
    yield from _gpu_rows(report)
    yield from _folder_rows(report)
    yield "CPUs", str(report.cpus)


def size(count: int) -> str:
    """Return a number of bytes as people read it."""
    return f"{count / 1e9:.1f} GB" if count >= 1e9 else f"{count / 1e6:.0f} MB"


def _caffe_rows(caffe: CaffeReport) -> Iterator[tuple[str, str]]:
    cuda = f"CUDA {caffe.cuda_version}" if caffe.cuda_version else "CUDA of unknown version"
    built = f"GPU ({cuda})" if caffe.gpu_build else "CPU only"
    yield "Caffe", f"{caffe.version}, {built}, {caffe.blas}"
    yield "  from", f"{caffe.origin}: {caffe.executable}"
    numpy_and_protobuf = f"NumPy {caffe.numpy_version}, protobuf {caffe.protobuf_version}"
    yield "  with", f"Python {caffe.python_version}, {numpy_and_protobuf}"
    lacking = [
        name
        for name, there in caffe.features.items()
        # A build for the CPU has nothing on a GPU to point to.
        if not there and (name != "gpu_pointers" or caffe.gpu_build)
    ]
    yield "  lacks", ", ".join(lacking) or "nothing that we use"


def _torch(torch: TorchProbe) -> str:
    if torch.cuda_version is None:
        return f"{torch.version}, built for the CPU only"
    gpus = ", ".join(torch.gpus) if torch.cuda_available else "no GPU that it can use"
    return f"{torch.version}, GPU (CUDA {torch.cuda_version}): {gpus}"


def _choice_rows(report: DoctorReport) -> Iterator[tuple[str, str]]:
    yield "--engine auto", f"{report.auto_engine or 'none'}: {report.auto_reason}"
    if report.auto_reason_on_gpu is not None:
        engine = report.auto_engine_on_gpu or "none"
        yield "  --device cuda", f"{engine}: {report.auto_reason_on_gpu}"


def _gpu_rows(report: DoctorReport) -> Iterator[tuple[str, str]]:
    users = ", ".join(_users(report)) or "no engine that is here"
    for gpu in report.gpus:
        yield "GPU", f"{_gpu(gpu)}, used by: {users}"
    if not report.gpus:
        seen_by_torch = report.torch.gpus if report.torch else []
        for name in seen_by_torch:
            yield "GPU", f"{name}, seen and used by torch (nvidia-smi shows none)"
        if not seen_by_torch:
            yield "GPU", "none seen (nvidia-smi)"
    cuda = report.driver_cuda_version
    yield "  driver", f"runs CUDA {cuda} and older" if cuda else "none seen (libcuda.so.1)"
    if report.cuda_visible_devices is not None:
        yield "  visible", f"{report.cuda_visible_devices or 'none'} ($CUDA_VISIBLE_DEVICES)"


def _gpu(gpu: Gpu) -> str:
    parts = [gpu.name]
    if gpu.memory_mib is not None:
        parts.append(f"{gpu.memory_mib / 1024:.0f} GiB")
    if gpu.compute_capability is not None:
        parts.append(f"compute capability {gpu.compute_capability}")
    return ", ".join([*parts, f"driver {gpu.driver}"])


def _users(report: DoctorReport) -> Iterator[str]:
    """Name the engines that can compute on a GPU here."""
    if "caffe" in report.cuda_builds:
        yield "caffe"
    if report.torch and report.torch.cuda_available:
        yield "torch"


def _folder_rows(report: DoctorReport) -> Iterator[tuple[str, str]]:
    yield "data folder", str(report.data_folder or "$PYCAFFE_PRUNE_DATA is not set")
    for name, there in report.mnist_files.items():
        yield f"  {name}", "there" if there else "not there"
    writable = "" if report.cache_is_writable else "  (cannot be written to)"
    yield "cache folder", f"{report.cache_folder}{writable}"
    yield "free for it", size(report.cache_free_bytes)
