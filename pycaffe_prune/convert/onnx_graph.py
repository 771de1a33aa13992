"""An ONNX graph while it is being built: nodes, constants, and unique names."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import helper, numpy_helper

from pycaffe_prune.formats.blobs import Blob
from pycaffe_prune.formats.caffe_pb2 import LayerParameter
from pycaffe_prune.net.shapes import LayerShapes, Shape

__all__ = ["Context", "OnnxGraph"]


@dataclass
class OnnxGraph:
    """Nodes and constants so far, in order."""

    nodes: list[onnx.NodeProto] = field(default_factory=list)
    constants: dict[str, onnx.TensorProto] = field(default_factory=dict)
    _names: set[str] = field(default_factory=set)

    def unique(self, name: str) -> str:
        """Return ``name``, or it with a number that makes it new, and take it."""
        chosen, number = name, 1
        while chosen in self._names:
            number += 1
            chosen = f"{name}:{number}"
        self._names.add(chosen)
        return chosen

    def constant(self, name: str, value: NDArray[Any]) -> str:
        """Add a tensor of values known now and return its name."""
        chosen = self.unique(name)
        self.constants[chosen] = numpy_helper.from_array(np.ascontiguousarray(value), chosen)
        return chosen

    def node(
        self, op: str, inputs: Sequence[str], outputs: Sequence[str], **attributes: Any
    ) -> None:
        """Add a node that makes the values ``outputs``."""
        name = self.unique(f"{outputs[0]}/{op}")
        self.nodes.append(helper.make_node(op, inputs, outputs, name, **attributes))


@dataclass(frozen=True)
class Context:
    """One layer while it becomes nodes."""

    graph: OnnxGraph
    layer: LayerParameter
    shapes: LayerShapes
    """All of them known."""
    inputs: tuple[str, ...]
    """Values of the bottoms."""
    outputs: tuple[str, ...]
    """Names that the values of the tops are to have."""
    blobs: tuple[Blob, ...]

    @property
    def bottom(self) -> Shape:
        """Shape of the first bottom."""
        shape = self.shapes.bottoms[0]
        return () if shape is None else shape

    @property
    def top(self) -> Shape:
        """Shape of the first top."""
        shape = self.shapes.tops[0]
        return () if shape is None else shape

    def blob(self, index: int, shape: Shape | None = None) -> str:
        """Return the name of a blob as a constant, in its own shape or another one."""
        value = self.blobs[index]
        return self.graph.constant(
            f"{self.layer.name}/{index}", value if shape is None else value.reshape(shape)
        )

    def scalar(self, value: float) -> str:
        """Return the name of a constant number."""
        return self.graph.constant(f"{self.layer.name}/number", np.array(value, np.float32))

    def integers(self, values: Sequence[int]) -> str:
        """Return the name of a constant list of whole numbers."""
        return self.graph.constant(f"{self.layer.name}/sizes", np.array(values, np.int64))

    def then(self, op: str, *inputs: str, **attributes: Any) -> str:
        """Add a node on the way to the top and return its value."""
        value = self.graph.unique(f"{self.layer.name}/{op.lower()}")
        self.graph.node(op, inputs, [value], **attributes)
        return value

    def finish(self, op: str, *inputs: str, **attributes: Any) -> None:
        """Add the node that makes the first top."""
        self.graph.node(op, inputs, self.outputs[:1], **attributes)

    def reshaped(self, value: str, bottom: Shape, top: Shape) -> str:
        """Bring a value from one shape to another, whatever the batch is."""
        return self.then("Reshape", value, self.integers(_sizes(bottom, top)))

    def finish_reshaped(self, value: str, bottom: Shape, top: Shape) -> None:
        """As `reshaped`, to the first top."""
        self.finish("Reshape", value, self.integers(_sizes(bottom, top)))


def _sizes(bottom: Shape, top: Shape) -> list[int]:
    """The sizes for ONNX's Reshape: the first axis is copied (0), or found (-1)."""
    if not top:
        return []
    return [0 if bottom[:1] == top[:1] else -1, *top[1:]]
