import json
import sys
from importlib.metadata import version
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from pycaffe_prune import __version__
from pycaffe_prune.cli.doctor import command as doctor_module
from pycaffe_prune.cli.doctor import look as doctor_look
from pycaffe_prune.cli.doctor.command import doctor
from pycaffe_prune.cli.doctor.report import DoctorReport
from pycaffe_prune.engines import choice
from pycaffe_prune.engines.caffe.prefix import InstallPlan
from pycaffe_prune.engines.gpus import Gpu
from pycaffe_prune.engines.torch.probe import TorchProbe
from pycaffe_prune.errors import EngineError

ANSWER = {
    "python_version": "3.8.1",
    "caffe_version": "1.0.0",
    "caffe_path": "/opt/caffe/python/caffe",
    "numpy_version": "1.19.5",
    "protobuf_version": "3.12.4",
    "features": {
        "add_callback": True,
        "apply_update": False,
        "lr": False,
        "gpu_pointers": False,
    },
    "libraries": ["/opt/lib/libopenblas.so.0"],
}


def program(path: Path, text: str) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)
    path.chmod(0o755)
    return path


@pytest.fixture
def machine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A machine with nothing: no Caffe, no PyTorch, no GPU, no data, an empty cache."""
    monkeypatch.setitem(sys.modules, "torch", None)
    monkeypatch.setattr(doctor_look, "driver_cuda_version", lambda: None)
    monkeypatch.setattr(doctor_look, "container_kind", lambda *_: None)
    for name in (
        "CAFFE_PYTHON",
        "CONDA_PREFIX",
        "CUDA_VISIBLE_DEVICES",
        "PYCAFFE_PRUNE_DATA",
        "PYCAFFE_PRUNE_DEBIAN_MIRROR",
    ):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("PYCAFFE_PRUNE_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("PATH", str(tmp_path / "bin"))
    monkeypatch.setenv("COLUMNS", "200")
    (tmp_path / "bin").mkdir()
    return tmp_path


@pytest.fixture
def caffe(machine: Path) -> Path:
    """An interpreter that answers as a Caffe would."""
    (machine / "answer").write_text(f"caffe-probe: {json.dumps(ANSWER)}\n")
    return program(machine / "caffe python", f'#!/bin/sh\n/bin/cat "{machine}/answer"\n')


def call(*arguments: str) -> Result:
    return CliRunner().invoke(doctor, list(arguments))


def report_of(result: Result) -> DoctorReport:
    return DoctorReport.model_validate_json(result.stdout, strict=True)


def test_nothing_usable_exits_1_and_says_how_to_get_it(machine: Path) -> None:
    result = call()
    assert result.exit_code == 1
    assert "no engine is usable" in result.stdout
    assert "caffe-prune doctor --install-caffe" in result.stdout
    assert "caffe-prune data mnist" in result.stdout


def test_json_has_the_same_verdict(machine: Path) -> None:
    result = call("--json")
    assert result.exit_code == 1
    report = report_of(result)
    assert report.caffe is None
    assert report.caffe_error is not None
    assert report.usable_engines == []
    assert {missing.what for missing in report.missing} == {
        "the real Caffe",
        "PyTorch",
        "MNIST's original files",
    }
    assert report.torch is None
    assert "pip install 'pycaffe-prune[torch]'" in (report.torch_error or "")
    assert report.auto_engine is None
    for remedy in ("doctor --install-caffe", "pip install 'pycaffe-prune[torch]'"):
        assert remedy in report.auto_reason


def test_usable_caffe_exits_0(machine: Path, caffe: Path) -> None:
    result = call("--caffe-python", str(caffe))
    assert result.exit_code == 0
    assert "1.0.0, CPU only, openblas" in result.stdout
    assert "apply_update, lr" in result.stdout
    assert "usable: caffe\n" in result.stdout
    assert "caffe: the real Caffe is here (--caffe-python)" in result.stdout


def test_json_says_where_caffe_is_from(
    machine: Path, caffe: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CAFFE_PYTHON", str(caffe))
    result = call("--json")
    assert result.exit_code == 0
    report = report_of(result)
    assert report.caffe is not None
    assert (report.caffe.executable, report.caffe.origin) == (caffe, "$CAFFE_PYTHON")
    assert report.caffe.features == ANSWER["features"]
    assert report.usable_engines == ["caffe"]
    assert (report.auto_engine, report.auto_reason) == (
        "caffe",
        "the real Caffe is here ($CAFFE_PYTHON)",
    )
    assert report.toolkit_version == __version__
    assert report.python_executable == Path(sys.executable)
    assert report.libraries["click"]
    assert "pytest" not in report.libraries
    assert report.cache_folder == machine / "cache"
    assert report.cache_free_bytes > 0
    assert report.cpus >= 1


def test_broken_caffe_exits_1_with_its_reason(
    machine: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    broken = program(machine / "broken", "#!/bin/sh\necho no libgdal >&2\nexit 1\n")
    monkeypatch.setenv("CAFFE_PYTHON", str(broken))
    result = call("--json")
    assert result.exit_code == 1
    report = report_of(result)
    assert "no libgdal" in (report.caffe_error or "")
    assert "unset CAFFE_PYTHON; caffe-prune doctor --install-caffe" in {
        missing.remedy for missing in report.missing
    }


def test_a_named_python_without_caffe_is_no_engine_for_auto(
    machine: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    broken = program(machine / "broken", "#!/bin/sh\nexit 1\n")
    monkeypatch.delitem(sys.modules, "torch")
    report = report_of(call("--caffe-python", str(broken), "--json"))
    assert (report.auto_engine, report.auto_reason) == (None, report.caffe_error)


def test_pytorch_alone_is_an_engine_and_is_described(
    machine: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delitem(sys.modules, "torch")
    result = call("--json")
    assert result.exit_code == 0
    report = report_of(result)
    assert report.usable_engines == ["torch"]
    assert report.torch is not None
    assert report.torch.version == version("torch")
    assert len(report.torch.gpus) == 0 or report.torch.cuda_available
    assert report.auto_engine == "torch"
    assert "the real Caffe is not here" in report.auto_reason
    text = call().stdout
    assert f"{report.torch.version}, " in text
    assert "torch: the real Caffe is not here" in text


def test_data_files_count_in_every_spelling(machine: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    mnist = machine / "data/mnist"
    mnist.mkdir(parents=True)
    monkeypatch.setenv("PYCAFFE_PRUNE_DATA", str(machine / "data"))
    for name in (
        "train-images-idx3-ubyte",
        "train-labels-idx1-ubyte.gz",
        "t10k-images.idx3-ubyte",
    ):
        (mnist / name).touch()
    report = report_of(call("--json"))
    assert report.data_folder == machine / "data"
    assert report.mnist_files == {
        "mnist/train-images-idx3-ubyte": True,
        "mnist/train-labels-idx1-ubyte": True,
        "mnist/t10k-images-idx3-ubyte": True,
        "mnist/t10k-labels-idx1-ubyte": False,
    }
    (mnist / "t10k-labels.idx1-ubyte.gz").touch()
    assert "MNIST's original files" not in {m.what for m in report_of(call("--json")).missing}


def test_without_a_gpu_nothing_is_said_of_choosing_for_one(machine: Path, caffe: Path) -> None:
    report = report_of(call("--caffe-python", str(caffe), "--json"))
    assert report.gpus == []
    assert (report.driver_cuda_version, report.auto_reason_on_gpu) == (None, None)
    text = call("--caffe-python", str(caffe)).stdout
    assert "none seen (nvidia-smi)" in text
    assert "--device cuda" not in text
    assert "gpu_pointers" not in text  # what no build for the CPU has is not lacking


def test_a_gpu_is_named_with_its_driver_and_cuda(
    machine: Path, caffe: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(doctor_look, "driver_cuda_version", lambda: "12.2")
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "0")
    program(machine / "bin/nvidia-smi", "#!/bin/sh\necho 'NVIDIA H100, 535.54.03, 81559, 9.0'\n")
    report = report_of(call("--caffe-python", str(caffe), "--json"))
    gpu = Gpu(name="NVIDIA H100", driver="535.54.03", memory_mib=81559, compute_capability="9.0")
    assert report.gpus == [gpu]
    assert (report.driver_cuda_version, report.cuda_visible_devices) == ("12.2", "0")
    text = call("--caffe-python", str(caffe)).stdout
    assert "NVIDIA H100, 80 GiB, compute capability 9.0, driver 535.54.03" in text
    assert "used by: no engine that is here" in text
    assert "CUDA 12.2 and older" in text
    assert "0 ($CUDA_VISIBLE_DEVICES)" in text
    assert "an engine that can use the GPU" in text


def test_each_device_has_its_engine_and_reason(
    machine: Path, caffe: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    torch = TorchProbe(version="2.13", cuda_version="12.1", cuda_available=True, gpus=["H100"])
    monkeypatch.delitem(sys.modules, "torch")
    monkeypatch.setattr(doctor_look, "probe_torch", lambda: torch)
    report = report_of(call("--caffe-python", str(caffe), "--json"))
    assert (report.auto_engine, report.auto_engine_on_gpu) == ("caffe", "torch")
    assert "built for the CPU only" in (report.auto_reason_on_gpu or "")
    text = call("--caffe-python", str(caffe)).stdout
    assert "GPU (CUDA 12.1): H100" in text
    assert "H100, seen and used by torch" in text

    on_cpu = torch.model_copy(update={"cuda_version": None, "cuda_available": False, "gpus": []})
    monkeypatch.setattr(doctor_look, "probe_torch", lambda: on_cpu)
    monkeypatch.setattr(doctor_look, "driver_cuda_version", lambda: "12.2")
    report = report_of(call("--caffe-python", str(caffe), "--json"))
    assert report.auto_engine_on_gpu == "torch"
    assert "PyTorch was built for the CPU only as well" in (report.auto_reason_on_gpu or "")


def test_a_caffe_built_for_the_gpu_is_chosen_for_it_and_tells_its_cuda(
    machine: Path, caffe: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    libraries = [*ANSWER["libraries"], "/opt/cuda/libcudart.so.11.2.152"]
    answer = json.dumps(ANSWER | {"libraries": libraries})
    (machine / "answer").write_text(f"caffe-probe: {answer}\n")
    for module in (choice, doctor_look):
        monkeypatch.setattr(module, "driver_cuda_version", lambda: "11.4")
    report = report_of(call("--caffe-python", str(caffe), "--json"))
    assert report.caffe is not None
    assert (report.caffe.gpu_build, report.caffe.cuda_version) == (True, "11.2")
    assert report.auto_engine_on_gpu == "caffe"
    assert "caffe" in report.usable_engines
    text = call("--caffe-python", str(caffe)).stdout
    assert "GPU (CUDA 11.2)" in text
    assert "apply_update, lr, gpu_pointers" in text


def test_a_caffe_built_for_the_gpu_is_not_usable_without_a_driver(
    machine: Path, caffe: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    answer = json.dumps(ANSWER | {"libraries": ["/opt/cuda/libcudart.so.11.2.152"]})
    (machine / "answer").write_text(f"caffe-probe: {answer}\n")
    monkeypatch.setenv("CAFFE_PYTHON", str(caffe))
    result = call()
    assert "install NVIDIA's driver" in result.stdout
    assert "no GPU's driver is visible" in " ".join(result.stdout.replace("│", " ").split())
    assert "caffe" not in report_of(call("--json")).usable_engines


def test_a_container_is_named_with_the_way_to_its_gpus_and_volumes(
    machine: Path, caffe: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(doctor_look, "container_kind", lambda *_: "docker")
    (machine / "file").touch()
    monkeypatch.setenv("PYCAFFE_PRUNE_CACHE", str(machine / "file/cache"))
    answer = json.dumps(ANSWER | {"libraries": ["/opt/cuda/libcudart.so.11.2.152"]})
    (machine / "answer").write_text(f"caffe-probe: {answer}\n")
    result = call("--caffe-python", str(caffe))
    for part in (
        "docker: what is in none of its volumes",
        "docker run --gpus all",
        "NVIDIA Container Toolkit",
        "(cannot be written to)",
        f"mount a volume at {machine}/file/cache",
    ):
        assert part in result.stdout
    report = report_of(call("--caffe-python", str(caffe), "--json"))
    assert (report.container, report.cache_is_writable) == ("docker", False)


@pytest.mark.parametrize("options", [["--prefix", "x"], ["--mirror", "http://x"], ["--dry-run"]])
def test_options_of_the_installation_need_it(machine: Path, options: list[str]) -> None:
    result = call(*options)
    assert result.exit_code == 2
    assert "--install-caffe" in result.stderr


def test_install_then_report(machine: Path, caffe: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    asked = []

    def install(prefix: Path, *, mirror: str | None, on_progress: object) -> Path:
        asked.append((prefix, mirror))
        return caffe

    monkeypatch.setattr(doctor_module, "install_caffe", install)
    prefix = machine / "my caffe"
    result = call("--install-caffe", "--prefix", str(prefix), "--mirror", "http://m", "--json")
    assert asked == [(prefix, "http://m")]
    assert result.exit_code == 0
    caffe_report = report_of(result).caffe
    assert caffe_report is not None
    assert caffe_report.executable == caffe
    assert f"export CAFFE_PYTHON='{caffe}'" in result.stderr


def test_failed_installation_is_the_commands_own_error(
    machine: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def install(prefix: Path, *, mirror: str | None, on_progress: object) -> Path:
        raise EngineError("no network")

    monkeypatch.setattr(doctor_module, "install_caffe", install)
    result = call("--install-caffe")
    assert isinstance(result.exception, EngineError)
    assert result.stdout == ""


def test_dry_run_installs_nothing(machine: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def plan(prefix: Path, *, mirror: str | None, on_progress: object) -> InstallPlan:
        return InstallPlan(
            already_installed=False,
            mirror="http://m/debian",
            release="bullseye",
            packages=221,
            packages_to_download=21,
            bytes_to_download=163_629_324,
            prefix=prefix,
        )

    monkeypatch.setattr(doctor_module, "plan_install", plan)
    monkeypatch.delattr(doctor_module, "install_caffe")
    result = call("--install-caffe", "--dry-run")
    assert result.exit_code == 0
    assert "221 packages, of which 21 (164 MB)" in result.stdout
    result = call("--install-caffe", "--dry-run", "--json")
    assert InstallPlan.model_validate_json(result.stdout).packages == 221


@pytest.mark.real_caffe
def test_the_real_caffe_is_reported(caffe_python: Path) -> None:
    result = call("--caffe-python", str(caffe_python), "--json")
    assert result.exit_code == 0
    report = report_of(result)
    assert report.caffe is not None
    assert report.caffe.version.startswith("1.0")
