"""A stand-in for CUDA graphs where there is no GPU: what is recorded is done again, call by call.

As a CUDA graph does, it computes nothing while it records, and writes to the same memory each time.
"""

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves


class Recording(TorchDispatchMode):
    """Records the operators that a function calls."""

    def __init__(self) -> None:
        super().__init__()
        self._calls: list[tuple[Any, Sequence[Any], dict[str, Any], Any]] = []
        self._before: list[tuple[Tensor, Tensor]] = []

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        kwargs = kwargs or {}
        known = func._schema.arguments
        named = [(one, kwargs[one.name]) for one in known if one.name in kwargs]
        for told, value in (*zip(known, args, strict=False), *named):  # ``out`` comes by its name
            if told.alias_info is not None and told.alias_info.is_write:
                self._before.append((value, value.clone()))
        outputs = func(*args, **kwargs)
        self._calls.append((func, args, kwargs, outputs))
        return outputs

    def undo(self) -> None:
        for tensor, before in reversed(self._before):
            tensor.copy_(before)
        self._before.clear()

    def replay(self) -> None:
        for func, args, kwargs, outputs in self._calls:
            again = func(*args, **kwargs)
            for place, value in zip(tree_leaves(outputs), tree_leaves(again), strict=True):
                if isinstance(place, Tensor) and place.data_ptr() != value.data_ptr():
                    place.copy_(value)


def recorded(body: Callable[[], None], device: torch.device) -> Recording:
    """As `stepping._recorded`, on a CPU."""
    recording = Recording()
    with recording:
        body()
    recording.undo()
    return recording
