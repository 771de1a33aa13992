"""Whether PyTorch is here, and what it can compute on; looked at without importing it here."""

import importlib.util
import json
import subprocess
import sys
import textwrap

from pydantic import BaseModel, ValidationError

from pycaffe_prune.errors import EngineError

__all__ = ["TORCH_REMEDY", "TorchProbe", "probe_torch", "torch_is_installed"]

TORCH_REMEDY = "python -m pip install 'pycaffe-prune[torch]'"

_MARK = "torch-probe: "
_PROBE = """
import json, sys
import torch
there = torch.cuda.is_available()
print(sys.argv[1] + json.dumps({
    "version": torch.__version__,
    "cuda_version": torch.version.cuda,
    "cuda_available": there,
    "gpus": [torch.cuda.get_device_name(i) for i in range(torch.cuda.device_count())] if there
            else [],
}))
"""


class TorchProbe(BaseModel):
    """What a PyTorch says of itself once imported."""

    version: str
    cuda_version: str | None
    """The CUDA that it was built with; None: a build for the CPU only."""
    cuda_available: bool
    """Whether there is a GPU with a driver that this build can use."""
    gpus: list[str]
    """Names, in the order of ``cuda:0``, ``cuda:1``, …"""


def torch_is_installed() -> bool:
    """Return whether PyTorch could be imported; it is not (that takes a second or more)."""
    return importlib.util.find_spec("torch") is not None


def probe_torch(*, timeout: float = 120.0) -> TorchProbe:
    """Import PyTorch in a child process, which may die of it, and return what it is.

    Args:
        timeout: Seconds after which the child is given up.

    Raises:
        EngineError: PyTorch is not installed, or cannot be imported; the message has its last
            lines.
    """
    if not torch_is_installed():
        raise EngineError(f"PyTorch is not installed; {TORCH_REMEDY}")
    try:
        done = subprocess.run(
            [sys.executable, "-c", _PROBE, _MARK],
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            errors="replace",
            check=False,
            timeout=timeout,
        )
    except subprocess.TimeoutExpired as error:
        raise EngineError(
            f"PyTorch did not answer within {timeout:g} seconds; {TORCH_REMEDY}"
        ) from error
    lines = [line for line in done.stdout.splitlines() if line.startswith(_MARK)]
    if done.returncode != 0 or not lines:
        reason = "; ".join(done.stderr.strip().splitlines()[-3:]) or "it printed nothing"
        raise EngineError(
            f"PyTorch cannot be imported (exit status {done.returncode}: "
            f"{textwrap.shorten(reason, 600)}); {TORCH_REMEDY}"
        )
    try:
        return TorchProbe.model_validate(json.loads(lines[-1].removeprefix(_MARK)))
    except (ValueError, ValidationError) as error:
        raise EngineError(f"PyTorch's answer is not understood: {lines[-1]}") from error
