"""What pycaffe raises, or aborts the process on, as exceptions."""

from pycaffe_prune.errors import EngineError

__all__ = ["CaffeError", "CheckError"]


class CaffeError(EngineError, RuntimeError):
    """Where pycaffe raises a RuntimeError."""


class CheckError(EngineError, RuntimeError):
    """Where a CHECK of Caffe would end the process."""
