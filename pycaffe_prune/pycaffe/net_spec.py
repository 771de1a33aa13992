"""Nets written in Python: ``L.Convolution(n.data, kernel_size=5, num_output=20)``.

What a layer gets as a keyword goes where Caffe's schema has a field of that name: into the layer's
own message (``convolution_param``) or else into the ``LayerParameter`` itself. The layers, their
order and their generated names are those of BVLC's ``python/caffe/net_spec.py``, so the same code
makes the same prototxt.
"""

from collections import Counter, OrderedDict
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any

from google.protobuf.message import Message

from pycaffe_prune.errors import PruneError
from pycaffe_prune.pycaffe.proto import caffe_pb2

__all__ = [
    "Function",
    "Layers",
    "NetSpec",
    "Parameters",
    "Top",
    "UnknownBlobError",
    "UnknownFieldError",
    "assign_proto",
    "layers",
    "param_name_dict",
    "params",
    "to_proto",
]


class UnknownFieldError(PruneError, AttributeError):
    """Caffe's schema has no field of the name that a layer was given."""


class UnknownBlobError(PruneError, KeyError, AttributeError):
    """A NetSpec was asked for a blob that nobody gave it.

    pycaffe raises KeyError; an AttributeError besides lets `hasattr` answer.
    """

    __str__ = Exception.__str__  # KeyError's quotes the sentence


def param_name_dict() -> dict[str, str]:
    """Return the field of each message of parameters: ``{"Convolution": "convolution", ...}``.

    Keys are the messages' names without ``Parameter``, which for most are types of layers; values
    are the fields of ``LayerParameter`` without ``_param``.
    """
    return {
        field.message_type.name.removesuffix("Parameter"): field.name.removesuffix("_param")
        for field in caffe_pb2.LayerParameter.DESCRIPTOR.fields
        if field.message_type is not None and field.name.endswith("_param")
    }


_param_names = param_name_dict()


def assign_proto(proto: Message, name: str, val: Any) -> None:
    """Set a field of a message to a Python value.

    A list or tuple fills a repeated field, and a single value is one item of it; a dict sets the
    fields of a message (or of a new item) by their names; anything else is the value.

    Raises:
        UnknownFieldError: The message has no such field.
    """
    field = _field(proto, name)
    if hasattr(field, "extend"):
        for item in val if isinstance(val, list | tuple) else [val]:
            if isinstance(item, Mapping):
                _assign_all(field.add(), item)
            else:
                field.extend([item])
    elif isinstance(val, Mapping):
        _assign_all(field, val)
    else:
        setattr(proto, name, val)


def _assign_all(proto: Message, values: Mapping[str, Any]) -> None:
    for name, val in values.items():
        assign_proto(proto, name, val)


def _field(proto: Message, name: str) -> Any:
    if name not in proto.DESCRIPTOR.fields_by_name:
        raise UnknownFieldError(f"{proto.DESCRIPTOR.name} has no field {name}")
    return getattr(proto, name)


class Top:
    """One blob that a layer makes; further layers take it as a bottom.

    Attributes:
        fn: The layer.
        n: Which of the layer's tops it is, from 0.
    """

    def __init__(self, fn: "Function", n: int) -> None:
        self.fn = fn
        self.n = n

    def to_proto(self) -> caffe_pb2.NetParameter:
        """Return a net of all layers that this blob needs, under generated names."""
        return to_proto(self)

    def _to_proto(self, layers: "_Messages", names: "_Names", autonames: Counter[str]) -> None:
        self.fn._to_proto(layers, names, autonames)


class Function:
    """One layer: its type, its bottoms and the keywords that it was given.

    Attributes:
        type_name: The layer's type.
        inputs: Its bottoms.
        params: Its keywords, without ``ntop`` and ``in_place``.
        ntop: How many tops it has.
        in_place: Whether its tops are its bottoms.
        tops: Its tops.
    """

    def __init__(self, type_name: str, inputs: Iterable[Top], params: dict[str, Any]) -> None:
        self.type_name = type_name
        self.inputs = tuple(inputs)
        for index, bottom in enumerate(self.inputs):
            if not isinstance(bottom, Top):
                raise TypeError(f"{type_name} input {index} is not a Top (type is {type(bottom)})")
        self.params = params
        self.ntop: int = params.pop("ntop", 1)
        self.in_place: bool = params.pop("in_place", False)
        self.tops = tuple(Top(self, n) for n in range(self.ntop))

    def _get_name(self, names: "_Names", autonames: Counter[str]) -> str:
        """Return the layer's name: that of its first top where it has one and no name yet."""
        if self not in names:
            names[self] = (
                self._get_top_name(self.tops[0], names, autonames)
                if self.tops
                else _generated(self.type_name, autonames)
            )
        return names[self]

    def _get_top_name(self, top: Top, names: "_Names", autonames: Counter[str]) -> str:
        if top not in names:
            names[top] = _generated(top.fn.type_name, autonames)
        return names[top]

    def _to_proto(self, layers: "_Messages", names: "_Names", autonames: Counter[str]) -> None:
        """Add this layer's message to ``layers``, after those of the layers that it needs."""
        for fn in _needed(self, layers):
            layers[fn] = fn._message(layers, names, autonames)

    def _message(
        self, layers: "_Messages", names: "_Names", autonames: Counter[str]
    ) -> caffe_pb2.LayerParameter:
        layer = caffe_pb2.LayerParameter(
            type=self.type_name,
            bottom=[layers[bottom.fn].top[bottom.n] for bottom in self.inputs],
        )
        layer.top.extend(
            layer.bottom
            if self.in_place
            else [self._get_top_name(top, names, autonames) for top in self.tops]
        )
        layer.name = self._get_name(names, autonames)
        for name, val in self.params.items():
            assign_proto(_holder(layer, name), name, val)
        return layer


_Messages = OrderedDict[Function, caffe_pb2.LayerParameter]
_Names = dict[Function | Top, str]


def _holder(layer: caffe_pb2.LayerParameter, name: str) -> Message:
    """Return the message that a layer's keyword belongs to."""
    if name.endswith("param") or layer.type not in _param_names:
        return layer
    own: Message = getattr(layer, f"{_param_names[layer.type]}_param")
    return own if name in own.DESCRIPTOR.fields_by_name else layer


def _generated(type_name: str, autonames: Counter[str]) -> str:
    autonames[type_name] += 1
    return f"{type_name}{autonames[type_name]}"


def _needed(fn: Function, made: _Messages) -> Iterator[Function]:
    """Yield what ``fn`` needs and ``made`` lacks, bottoms first, ``fn`` last.

    A net may be deeper than Python's stack.
    """
    stack = [(fn, iter(fn.inputs))] if fn not in made else []
    while stack:
        current, bottoms = stack[-1]
        for bottom in bottoms:
            if bottom.fn not in made:
                stack.append((bottom.fn, iter(bottom.fn.inputs)))
                break
        else:
            stack.pop()
            yield current


def to_proto(*tops: Top | Function) -> caffe_pb2.NetParameter:
    """Return a net of all layers that the tops need, under generated names."""
    return _net(tops, {})


def _net(tops: Iterable[Top | Function], names: _Names) -> caffe_pb2.NetParameter:
    layers: _Messages = OrderedDict()
    autonames: Counter[str] = Counter()
    for top in tops:
        top._to_proto(layers, names, autonames)
    return caffe_pb2.NetParameter(layer=layers.values())


class NetSpec:
    """A net whose blobs are attributes (or items) under the names that they shall have.

    Attributes:
        tops: The blobs, and layers without tops, in the order in which they were assigned.
    """

    tops: OrderedDict[str, Any]

    def __init__(self) -> None:
        super().__setattr__("tops", OrderedDict())

    def __setattr__(self, name: str, value: Any) -> None:
        self.tops[name] = value

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__") or name == "tops":  # what copy and pickle ask for
            raise AttributeError(name)
        if name not in self.tops:
            raise UnknownBlobError(f"the NetSpec has no blob {name}")
        return self.tops[name]

    def __setitem__(self, key: str, value: Any) -> None:
        self.tops[key] = value

    def __getitem__(self, item: str) -> Any:
        return getattr(self, item)

    def to_proto(self) -> caffe_pb2.NetParameter:
        """Return the net of all blobs assigned and the layers that they need."""
        return _net(self.tops.values(), {top: name for name, top in self.tops.items()})


class Layers:
    """Layers of any type: ``Layers().Pooling(bottom, ...)`` is the layer's top.

    A layer with several tops (``ntop=2``) gives them as a tuple, one with none gives the
    `Function` itself.
    """

    def __getattr__(self, name: str) -> Callable[..., Any]:
        if name.startswith("__"):  # what copy and pickle ask for
            raise AttributeError(name)

        def layer_fn(*args: Top, **kwargs: Any) -> Any:
            fn = Function(name, args, kwargs)
            if fn.ntop == 0:
                return fn
            return fn.tops[0] if fn.ntop == 1 else fn.tops

        return layer_fn


class Parameters:
    """The values of layers' enums: ``Parameters().Pooling.MAX``."""

    def __getattr__(self, name: str) -> Any:
        return getattr(caffe_pb2, f"{name}Parameter")


layers = Layers()
params = Parameters()
