"""A GPU that this machine has not: its tensors lie on the CPU, where nothing else may read them.

PyTorch knows them as tensors of another device. As with a GPU, an operation on tensors of both
sides fails, an array of one cannot be had, and values go over by copies alone, which are counted.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import Any, Self

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves, tree_map_only

__all__ = ["StandIn", "stand_in_device"]

_TYPE = "lazy"  # of all that PyTorch has a name for, the one that needs no hardware
_CPU = torch.device("cpu")
_COPIES = {torch.ops.aten.copy_.default, torch.ops.aten._to_copy.default}


def stand_in_device(number: int) -> torch.device:
    """The device that stands in for the GPU of a number."""
    return torch.device(_TYPE, number)


class _OnDevice(Tensor):
    """A tensor of the device; `inner` has its values."""

    inner: Tensor

    @staticmethod
    def __new__(cls, inner: Tensor, device: torch.device) -> Self:
        made = Tensor._make_wrapper_subclass(
            cls,
            inner.shape,
            inner.stride(),
            inner.storage_offset(),
            dtype=inner.dtype,
            device=device,
        )
        made.inner = inner
        return made

    def data_ptr(self) -> int:
        return self.inner.data_ptr()

    @classmethod
    def __torch_dispatch__(cls, func, types, args=(), kwargs=None):
        raise AssertionError(f"{func} on a tensor of the device outside of `StandIn`")


class StandIn(TorchDispatchMode):
    """While it is entered, tensors can be made on `stand_in_device`."""

    def __init__(self) -> None:
        super().__init__()
        self.copies = 0
        """Values that went from one side to the other, by tensors."""

    def __torch_dispatch__(
        self,
        func: Callable[..., Any],
        types: Sequence[type],
        args: tuple[Any, ...] = (),
        kwargs: Mapping[str, Any] | None = None,
    ) -> Any:
        kwargs = dict(kwargs or {})
        tensors = [one for one in tree_leaves((args, kwargs)) if isinstance(one, Tensor)]
        devices = {one.device for one in tensors if one.device != _CPU}
        wanted = kwargs.get("device")
        if not devices and getattr(wanted, "type", None) != _TYPE:
            return func(*args, **kwargs)
        if wanted is not None:
            kwargs["device"] = _CPU
        self._cross(func, tensors, devices, wanted)
        device = wanted if wanted is not None else tensors[0].device if func in _COPIES else None
        if device is None:
            (device,) = devices
        inners = {id(one.inner): one for one in tensors if isinstance(one, _OnDevice)}
        args, kwargs = tree_map_only(_OnDevice, lambda one: one.inner, (args, kwargs))
        made = func(*args, **kwargs)

        def given(one: Tensor) -> Tensor:
            if id(one) in inners:
                return inners[id(one)]
            return one if device == _CPU else _OnDevice(one, device)

        return tree_map_only(Tensor, given, made)

    def _cross(
        self,
        func: Callable[..., Any],
        tensors: Sequence[Tensor],
        devices: set[torch.device],
        wanted: torch.device | None,
    ) -> None:
        """Count a copy between the sides; refuse everything else that needs both."""
        met = devices | {one.device for one in tensors if one.dim() or func in _COPIES}
        if func in _COPIES:
            self.copies += len(met | ({wanted} if wanted else set())) > 1
        elif len(met) > 1:
            raise RuntimeError(f"{func}: tensors on {', '.join(map(str, met))}")
