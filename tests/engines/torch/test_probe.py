import sys
from importlib.metadata import version
from pathlib import Path

import pytest

from pycaffe_prune.engines.torch.probe import probe_torch, torch_is_installed
from pycaffe_prune.errors import EngineError


def fake_torch(folder: Path, init: str) -> str:
    """A package torch that is found before the real one."""
    (folder / "torch").mkdir(parents=True)
    (folder / "torch/__init__.py").write_text(init)
    return str(folder)


def test_the_installed_pytorch_is_described() -> None:
    pytest.importorskip("torch")
    found = probe_torch()
    assert found.version == version("torch")
    assert found.cuda_available == bool(found.gpus)
    assert found.cuda_version or not found.gpus


def test_a_missing_pytorch_names_the_remedy(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "torch", None)
    assert not torch_is_installed()
    with pytest.raises(EngineError, match=r"not installed; .*pip install 'pycaffe-prune\[torch\]'"):
        probe_torch()


@pytest.mark.parametrize(
    ("init", "message"),
    [
        ("raise OSError('libcudart.so.99: no such file')", r"libcudart\.so\.99"),
        ("import os; os._exit(3)", "exit status 3: it printed nothing"),
        ("import time; time.sleep(60)", "within 1 seconds"),
        ("print('torch-probe: {}'); raise SystemExit", "not understood"),
    ],
)
def test_a_pytorch_that_cannot_be_imported_is_told_from_this_process(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, init: str, message: str
) -> None:
    monkeypatch.setenv("PYTHONPATH", fake_torch(tmp_path, init))
    monkeypatch.syspath_prepend(str(tmp_path))
    with pytest.raises(EngineError, match=message):
        probe_torch(timeout=1 if "sleep" in init else 60)
