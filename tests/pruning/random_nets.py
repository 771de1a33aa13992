"""Random nets of every kind of connection through which units are deleted, with random weights."""

import math
from dataclasses import dataclass

import numpy as np
from hypothesis import strategies as st

from pycaffe_prune.formats.caffe_pb2 import LayerParameter, NetParameter
from pycaffe_prune.formats.caffemodel import Caffemodel, Layer
from pycaffe_prune.net.shapes import infer_shapes
from pycaffe_prune.pruning.sharing import shared_blobs

SIZE = 6


@dataclass
class Blob:
    """A blob of the net under construction: channels × side × side, or channels alone."""

    name: str
    channels: int
    side: int | None


class NetBuilder:
    """Adds layers, each reading blobs that there are; what nobody reads at the end is an output."""

    def __init__(self, draw: st.DrawFn) -> None:
        self._draw = draw
        self.net = NetParameter(name="random")
        self._count = 0
        self._shared = 0
        data = self._layer("Input", [], ["data"])
        data.input_param.shape.add(dim=[2, 4, SIZE, SIZE])
        self.blobs = [Blob("data", 4, SIZE)]

    def _layer(self, kind: str, bottoms: list[str], tops: list[str]) -> LayerParameter:
        self._count += 1
        return self.net.layer.add(
            name=f"{kind.lower()}{self._count}", type=kind, bottom=bottoms, top=tops
        )

    def _new(self, channels: int, side: int | None) -> Blob:
        blob = Blob(f"b{self._count + 1}", channels, side)
        self.blobs.append(blob)
        return blob

    def any_blob(self, is_map: bool | None = None) -> Blob:
        fitting = [b for b in self.blobs if is_map is None or (b.side is not None) == is_map]
        return self._draw(st.sampled_from(fitting))

    def convolution(self) -> None:
        bottom = self.any_blob(is_map=True)
        group = self._draw(
            st.sampled_from([g for g in (1, 1, 2, bottom.channels) if bottom.channels % g == 0])
        )
        outputs = group * self._draw(st.integers(1, 6 if group == 1 else 3))
        top = self._new(outputs, bottom.side)
        param = self._layer("Convolution", [bottom.name], [top.name]).convolution_param
        param.num_output, param.group = outputs, group
        param.bias_term = self._draw(st.booleans())
        if self._draw(st.booleans()):
            param.kernel_size.append(3)
            param.pad.append(1)
        else:
            param.kernel_size.append(1)

    def twins(self) -> None:
        """Two Convolutions on one blob, with the same parameters; the second sees other values."""
        bottom = self.any_blob(is_map=True)
        outputs = self._draw(st.integers(1, 5))
        power = Blob(f"b{self._count + 1}", bottom.channels, bottom.side)
        self._layer("Power", [bottom.name], [power.name]).power_param.scale = -0.5
        self._shared += 1
        for source in (bottom, power):
            top = self._new(outputs, bottom.side)
            layer = self._layer("Convolution", [source.name], [top.name])
            layer.convolution_param.num_output = outputs
            layer.convolution_param.kernel_size.append(1)
            layer.param.add(name=f"w{self._shared}")
            layer.param.add(name=f"b{self._shared}")

    def two_bottoms(self) -> None:
        """A Convolution that reads two blobs with the same weights, as Caffe lets it."""
        first = self.any_blob(is_map=True)
        same = [b for b in self.blobs if (b.side, b.channels) == (first.side, first.channels)]
        other = self._draw(st.sampled_from(same))
        outputs = self._draw(st.integers(1, 5))
        top = self._new(outputs, first.side)
        second = Blob(f"{top.name}'", outputs, first.side)
        self.blobs.append(second)
        layer = self._layer("Convolution", [first.name, other.name], [top.name, second.name])
        layer.convolution_param.num_output = outputs
        layer.convolution_param.kernel_size.append(1)

    def inner_product(self, outputs: int | None = None) -> None:
        bottom = self.any_blob()
        self.read_by_inner_product(bottom, outputs or self._draw(st.integers(1, 5)))

    def read_by_inner_product(self, bottom: Blob, outputs: int) -> None:
        top = self._new(outputs, None)
        param = self._layer("InnerProduct", [bottom.name], [top.name]).inner_product_param
        param.num_output = outputs
        param.bias_term = self._draw(st.booleans())
        param.transpose = self._draw(st.booleans())

    def in_between(self) -> None:
        kinds = ["ReLU", "PReLU", "Sigmoid", "Dropout", "BatchNorm", "Scale", "Bias", "Split"]
        bottom = self.any_blob()
        kind = self._draw(st.sampled_from(kinds))
        if kind == "Split":
            tops = [self._new(bottom.channels, bottom.side).name]
            self.blobs.append(Blob(f"{tops[0]}'", bottom.channels, bottom.side))
            self._layer(kind, [bottom.name], [tops[0], f"{tops[0]}'"])
            return
        # Caffe copies a blob for each reader, so one with other readers cannot be written in place.
        is_read = any(bottom.name in layer.bottom for layer in self.net.layer)
        in_place = kind in ("ReLU", "Dropout", "Scale") and not is_read
        in_place = in_place and self._draw(st.booleans())
        top = bottom if in_place else self._new(bottom.channels, bottom.side)
        layer = self._layer(kind, [bottom.name], [top.name])
        if kind == "Scale":
            layer.scale_param.bias_term = self._draw(st.booleans())

    def pooling(self) -> None:
        bottom = self.any_blob(is_map=True)
        top = self._new(bottom.channels, math.ceil((bottom.side - 2) / 2) + 1)
        param = self._layer("Pooling", [bottom.name], [top.name]).pooling_param
        param.pool = self._draw(st.sampled_from([0, 1]))
        param.kernel_size = param.stride = 2

    def concat(self) -> None:
        first = self.any_blob()
        same = [b for b in self.blobs if b.side == first.side]
        parts = [first, *self._draw(st.lists(st.sampled_from(same), max_size=2))]
        top = self._new(sum(part.channels for part in parts), first.side)
        self._layer("Concat", [part.name for part in parts], [top.name])

    def slice(self) -> None:
        bottom = self.any_blob()
        if bottom.channels < 2:
            return
        at = self._draw(st.integers(1, bottom.channels - 1))
        first = self._new(at, bottom.side)
        second = Blob(f"{first.name}'", bottom.channels - at, bottom.side)
        self.blobs.append(second)
        layer = self._layer("Slice", [bottom.name], [first.name, second.name])
        if at * 2 != bottom.channels or self._draw(st.booleans()):
            layer.slice_param.slice_point.append(at)

    def eltwise(self) -> None:
        first = self.any_blob()
        same = [b for b in self.blobs if (b.side, b.channels) == (first.side, first.channels)]
        other = self._draw(st.sampled_from(same))
        top = self._new(first.channels, first.side)
        param = self._layer("Eltwise", [first.name, other.name], [top.name]).eltwise_param
        param.operation = self._draw(st.sampled_from([0, 1, 2]))

    def residual(self) -> None:
        """Two Convolutions whose outputs are added up."""
        bottom = self.any_blob(is_map=True)
        outputs = self._draw(st.integers(2, 6))
        names = []
        for _ in range(2):
            names.append(self._new(outputs, bottom.side).name)
            param = self._layer("Convolution", [bottom.name], names[-1:]).convolution_param
            param.num_output = outputs
            param.kernel_size.append(1)
        top = self._new(outputs, bottom.side)
        self._layer("Eltwise", names, [top.name])

    def flatten(self) -> None:
        bottom = self.any_blob(is_map=True)
        kind = self._draw(st.sampled_from(["Flatten", "Reshape"]))
        top = self._new(bottom.channels * bottom.side**2, None)
        layer = self._layer(kind, [bottom.name], [top.name])
        if kind == "Reshape":
            layer.reshape_param.shape.dim.extend([0, -1])

    def pyramid(self) -> None:
        bottom = self.any_blob(is_map=True)
        height = 1 if bottom.side == 1 else 2
        windows, side = (1, 1) if height == 1 else (5, None)
        top = self._new(bottom.channels * windows, side)
        self._layer("SPP", [bottom.name], [top.name]).spp_param.pyramid_height = height

    def columns(self) -> None:
        bottom = self.any_blob(is_map=True)
        kernel = min(bottom.side, 2)
        top = self._new(bottom.channels * kernel**2, bottom.side - kernel + 1)
        param = self._layer("Im2col", [bottom.name], [top.name]).convolution_param
        param.kernel_size.append(kernel)

    def finish(self) -> None:
        """Let an InnerProduct layer read whatever nobody reads."""
        read = {bottom for layer in self.net.layer for bottom in layer.bottom}
        tops = {top for layer in self.net.layer for top in layer.top}
        by_name = {blob.name: blob for blob in self.blobs}
        for name in sorted(tops - read):
            if name in by_name:
                self.read_by_inner_product(by_name[name], 3)


STEPS = [
    NetBuilder.convolution, NetBuilder.convolution, NetBuilder.inner_product, NetBuilder.in_between,
    NetBuilder.pooling, NetBuilder.concat, NetBuilder.slice, NetBuilder.eltwise,
    NetBuilder.residual, NetBuilder.flatten, NetBuilder.twins,
    NetBuilder.two_bottoms, NetBuilder.pyramid, NetBuilder.columns,
]  # fmt: skip


def random_weights(net: NetParameter, seed: int) -> Caffemodel:
    """Weights that keep values near 1; layers that share parameters have the same."""
    random = np.random.default_rng(seed)
    shared: dict[str, np.ndarray] = {}
    layers = []
    for layer, shapes in zip(net.layer, infer_shapes(net.layer), strict=True):
        if not shapes.params:
            continue
        blobs = []
        for index, shape in enumerate(shapes.params):
            spread = 1 / math.sqrt(math.prod(shape[1:]) or 1)
            values = random.normal(0, spread, shape).astype(np.float32)
            if layer.type == "BatchNorm":
                values = np.abs(values) + np.float32(0.5)
            name = layer.param[index].name if index < len(layer.param) else ""
            blobs.append(shared.setdefault(name, values) if name else values)
        definition = LayerParameter()
        definition.CopyFrom(layer)
        layers.append(Layer(definition, tuple(blobs)))
    return Caffemodel(tuple(layers), NetParameter(name=net.name))


def sparse_weights(net: NetParameter, seed: int) -> Caffemodel:
    """Random weights of which many are zero: whole rows, whole columns, and one by one."""
    model, random = random_weights(net, seed), np.random.default_rng(seed)
    shared = shared_blobs(net)
    changed = {}
    for (name, index), blob in model.blobs():
        if index or blob.ndim < 2 or (name, index) in changed:
            continue
        values = blob * (random.random(blob.shape) < random.choice([0.2, 0.9]))
        for axis in (0, 1):
            alive = random.random(blob.shape[axis]) < random.choice([0.3, 0.7, 1])
            values = values * np.expand_dims(alive, [a for a in range(blob.ndim) if a != axis])
        changed.update(dict.fromkeys(shared.get((name, index), [(name, index)]), values))
    return model.with_blobs({key: blob.astype(np.float32) for key, blob in changed.items()})


@st.composite
def nets(draw: st.DrawFn) -> NetParameter:
    builder = NetBuilder(draw)
    builder.convolution()
    for step in draw(st.lists(st.sampled_from(STEPS), min_size=1, max_size=8)):
        step(builder)
    builder.finish()
    return builder.net
