"""Which engine is taken, on machines with and without each of them."""

import json
import sys
from pathlib import Path

import pytest

from pycaffe_prune.engines import choice
from pycaffe_prune.engines.caffe.engine import CaffeEngine
from pycaffe_prune.engines.choice import EngineWish, choose_engine, decide
from pycaffe_prune.errors import EngineError

ANSWER = {
    "python_version": "3.8.1",
    "caffe_version": "1.0.0",
    "caffe_path": "/opt/caffe/python/caffe",
    "numpy_version": "1.19.5",
    "protobuf_version": "3.12.4",
    "features": {"add_callback": True, "apply_update": True, "lr": True, "gpu_pointers": False},
}
CUDA = ["/opt/cuda/libcudart.so.11.0"]


@pytest.fixture
def bare(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A machine without any Caffe; PyTorch is found, as far as anyone looks."""
    pytest.importorskip("torch")
    monkeypatch.delenv("CAFFE_PYTHON", raising=False)
    monkeypatch.setenv("PYCAFFE_PRUNE_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("PATH", str(tmp_path / "bin"))
    monkeypatch.setattr(choice, "driver_cuda_version", lambda: "12.2")
    return tmp_path


@pytest.fixture
def no_torch(bare: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "torch", None)


def caffe(bare: Path, libraries: list[str]) -> Path:
    """A Python that answers as one with a Caffe would."""
    (bare / "answer").write_text(f"caffe-probe: {json.dumps(ANSWER | {'libraries': libraries})}\n")
    return _program(bare / "python", f'/bin/cat "{bare}/answer"')


def broken(bare: Path) -> Path:
    return _program(bare / "broken", "echo no libgdal >&2; exit 1")


def _program(path: Path, line: str) -> Path:
    path.write_text(f"#!/bin/sh\n{line}\n")
    path.chmod(0o755)
    return path


@pytest.mark.parametrize(
    ("libraries", "device", "taken"),
    [
        ([], "cpu", "caffe"),
        (CUDA, "cpu", "caffe"),
        (CUDA, "cuda:1", "caffe"),
        ([], "cuda", "torch"),
    ],
)
@pytest.mark.parametrize("named", [True, False])
def test_auto_takes_the_real_caffe_where_it_was_built_for_the_device(
    bare: Path,
    monkeypatch: pytest.MonkeyPatch,
    libraries: list[str],
    device: str,
    taken: str,
    named: bool,
) -> None:
    python = caffe(bare, libraries)
    if not named:
        monkeypatch.setenv("CAFFE_PYTHON", str(python))
    decision = decide(EngineWish(caffe_python=python if named else None, device=device))
    assert decision.name == taken
    assert decision.caffe_python == (python if taken == "caffe" else None)
    if taken == "torch":
        assert "built for the CPU only" in decision.reason
        assert str(python) in decision.reason


def test_a_caffe_built_with_cuda_wants_a_driver_even_on_the_cpu(
    bare: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(choice, "driver_cuda_version", lambda: None)
    monkeypatch.setenv("CAFFE_PYTHON", str(caffe(bare, CUDA)))
    decision = decide(EngineWish())
    assert decision.name == "torch"
    assert "docker run --gpus all" in decision.reason
    with pytest.raises(EngineError, match="no GPU's driver is visible"):
        decide(EngineWish("caffe", device="cuda"))
    monkeypatch.setenv("CAFFE_PYTHON", str(caffe(bare, [])))
    assert decide(EngineWish()).name == "caffe"


def test_auto_takes_torch_where_there_is_no_caffe_and_says_how_to_get_one(bare: Path) -> None:
    decision = decide(EngineWish())
    assert decision.name == "torch"
    assert "caffe-prune doctor --install-caffe" in decision.reason


def test_auto_takes_torch_where_the_caffe_found_is_broken(
    bare: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CAFFE_PYTHON", str(broken(bare)))
    decision = decide(EngineWish())
    assert decision.name == "torch"
    assert "no libgdal" in decision.reason


@pytest.mark.parametrize(
    "wish",
    [
        EngineWish(tf32=True, device="cuda"),
        EngineWish(pack=2),
        EngineWish(torch_only="the method 'obd'"),
    ],
)
def test_auto_takes_torch_for_what_only_torch_has(
    bare: Path, monkeypatch: pytest.MonkeyPatch, wish: EngineWish
) -> None:
    monkeypatch.setenv("CAFFE_PYTHON", str(caffe(bare, CUDA)))
    assert decide(wish).name == "torch"


def test_a_named_python_is_not_passed_over(bare: Path) -> None:
    with pytest.raises(EngineError, match="--caffe-python: /nowhere is not a program"):
        decide(EngineWish(caffe_python=Path("/nowhere")))
    assert decide(EngineWish(caffe_python=broken(bare))).name == "caffe"


def test_without_any_engine_both_remedies_are_named(
    no_torch: None, bare: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(EngineError) as none:
        decide(EngineWish())
    for remedy in ("doctor --install-caffe", "pip install 'pycaffe-prune[torch]'"):
        assert remedy in str(none.value)
    monkeypatch.setenv("CAFFE_PYTHON", str(caffe(bare, [])))
    assert decide(EngineWish()).name == "caffe"
    with pytest.raises(EngineError, match=r"CPU only.*Nor is PyTorch here"):
        decide(EngineWish(device="cuda"))


def test_an_engine_that_is_asked_for_is_taken_or_refused(no_torch: None, bare: Path) -> None:
    with pytest.raises(EngineError, match=r"needs PyTorch.*pip install"):
        decide(EngineWish("torch"))
    with pytest.raises(EngineError, match="the real Caffe is not here"):
        decide(EngineWish("caffe"))
    python = caffe(bare, [])
    with pytest.raises(EngineError, match=r"CPU only.*cuda:0; take --engine torch"):
        decide(EngineWish("caffe", python, "cuda:0"))
    choice = choose_engine(EngineWish("caffe", python))
    assert isinstance(choice.engine, CaffeEngine)


def test_torch_is_made_without_importing_it_here(bare: Path) -> None:
    choice = choose_engine(EngineWish("torch"))
    assert (choice.engine.name, choice.reason) == ("torch", "it was asked for")
    choice.engine.close()
