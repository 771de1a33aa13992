"""Whether a net and a caffemodel belong together: every blob there, and of the right shape."""

from collections.abc import Collection, Mapping, Sequence
from types import MappingProxyType

from pycaffe_prune.errors import SurgeryError
from pycaffe_prune.formats.blobs import Blob
from pycaffe_prune.formats.caffe_pb2 import TEST, LayerParameter, NetParameter
from pycaffe_prune.formats.caffemodel import Caffemodel
from pycaffe_prune.net.fork_forms import open_fields, stock_form
from pycaffe_prune.net.graph import NetGraph, NetState, layers_in_state
from pycaffe_prune.net.loading import LEARNING
from pycaffe_prune.net.shapes import LayerShapes, Shape, extents, infer_shapes

__all__ = ["refuse_repeated_names", "require_fitting"]

_NO_INPUTS: Mapping[str, Shape] = MappingProxyType({})
_MOST_NAMES = 12
_Told = tuple[int | None, ...]


def refuse_repeated_names(net: NetParameter) -> None:
    """See that no state of the net has two layers of one name where one of them has weights.

    Caffe builds such a net, but weights find their layer by its name alone: it loads all of them
    into the first (`Net::CopyTrainedLayersFrom` of `src/caffe/net.cpp`), or aborts. To be called
    wherever weights are loaded into a net, saved or pruned. Layers without weights may repeat
    names, and so may layers that are in no state together.

    Args:
        net: In the V2 form.

    Raises:
        SurgeryError: Two layers have one name; the sentence tells both types.
    """
    for graph in NetGraph.of_all_states(net):
        first: dict[str, LayerParameter] = {}
        for layer in graph.layers:
            other = first.setdefault(layer.name, layer)
            if other is not layer and {other.type, layer.type} & LEARNING:
                raise SurgeryError(
                    f"net '{net.name}' has two layers of the name '{layer.name}' ({other.type} and "
                    f"{layer.type}), and weights find their layer by its name: Caffe would load "
                    "those of both into the first; give one of them another name"
                )


def require_fitting(
    net: NetParameter,
    model: Caffemodel,
    inputs: Mapping[str, Shape] = _NO_INPUTS,
    *,
    may_lack: Collection[str] = (),
) -> None:
    """See that Caffe can load ``model`` into ``net`` and finds all weights of the TEST net there.

    Caffe aborts on blobs of another number or shape, and silently leaves a layer that the file
    lacks at its fillers (`Net::CopyTrainedLayersFrom` of `src/caffe/net.cpp`); here both are
    errors. Layers that only training nets have may be missing: published weights often leave them
    out. Where the net does not tell its input's shape, what the definitions say by themselves is
    compared (``num_output``, number of blobs).

    Args:
        net: A net in the V2 form, deploy or train_val; every state of it is looked at.
        model: The weights.
        inputs: Shapes of blobs that the prototxt does not tell, as for `infer_shapes`.
        may_lack: Layers that are meant to start from their fillers where the file lacks them.

    Raises:
        SurgeryError: A layer's blobs are missing, too many, or have other shapes; the sentence
            names the layer and both shapes. Or the net contradicts itself.
    """
    held = {layer.name: layer.blobs for layer in model.layers}
    in_use = {layer.name for layer in layers_in_state(net, NetState.of(net, TEST))} - set(may_lack)
    for graph in NetGraph.of_all_states(net):
        owned: set[str] = set()
        shapes = infer_shapes(graph.layers, inputs)
        for layer, around in zip(graph.layers, shapes, strict=True):
            told = _told(layer, around)
            if told is not None and (layer.name in held or layer.name in in_use):
                _require_blobs(layer, told, held.get(layer.name), owned, model)
            owned |= {param.name for param in layer.param if param.name}


def _told(layer: LayerParameter, around: LayerShapes) -> Sequence[_Told] | None:
    """What the net says of the layer's blobs; None = nothing, an unknown extent is None."""
    if around.problem is None:
        return around.params
    if open_fields(layer):
        return None
    layer = stock_form(layer)
    if layer.type == "InnerProduct":
        units, outputs = layer.inner_product_param, layer.inner_product_param.num_output
        weight: _Told = (None, outputs) if units.transpose else (outputs, None)
        return (weight, (outputs,)) if units.bias_term else (weight,)
    if layer.type == "Convolution":
        filters = layer.convolution_param
        # Without the bottom's shape the number of spatial axes is not known: two are the rule.
        kernel = list(filters.kernel_size) or [filters.kernel_h, filters.kernel_w]
        weight = (filters.num_output, None, *(kernel * 2 if len(kernel) == 1 else kernel))
        return (weight, (filters.num_output,)) if filters.bias_term else (weight,)
    return None


def _require_blobs(
    layer: LayerParameter,
    told: Sequence[_Told],
    blobs: Sequence[Blob] | None,
    owned: set[str],
    model: Caffemodel,
) -> None:
    # HDF5 files hold a shared blob at its owner only.
    shared = [
        index < len(layer.param) and layer.param[index].name in owned for index in range(len(told))
    ]
    if not blobs:
        if not all(shared):
            names = [layer.name for layer in model.layers if layer.blobs]
            more = f" and {len(names) - _MOST_NAMES} more" if len(names) > _MOST_NAMES else ""
            listed = ", ".join(names[:_MOST_NAMES]) or "none"
            raise SurgeryError(
                f"layer '{layer.name}': the net has it with blobs {_listed(told)}, the caffemodel "
                f"holds none for it; rename the layer, or give the weights of this net (layers "
                f"with blobs there: {listed}{more})"
            )
        return
    if len(blobs) != len(told) and not (len(blobs) < len(told) and all(shared[len(blobs) :])):
        remedy = "give the weights of this net, or correct its bias_term"
        if _may_be_a_forks(layer, told, blobs):
            remedy = (
                "they look like a fork's, with masks or a scale: bring them to Caffe's form with "
                "convert --to stock, and the net if it is the fork's"
            )
        raise SurgeryError(
            f"layer '{layer.name}': the net says {len(told)} blobs ({_listed(told)}), the "
            f"caffemodel holds {len(blobs)} ({_listed([blob.shape for blob in blobs])}); {remedy}"
        )
    for index, (wanted, blob) in enumerate(zip(told, blobs, strict=False)):
        if not _is(wanted, blob.shape):
            raise SurgeryError(
                f"layer '{layer.name}', blob {index}: the net says {_text(wanted)}, the caffemodel "
                f"holds {extents(blob.shape)}; give the weights of this net, or correct the "
                "layer's parameters or the input's shape"
            )


def _may_be_a_forks(layer: LayerParameter, told: Sequence[_Told], blobs: Sequence[Blob]) -> bool:
    """Whether blobs of the shapes of the first ones follow these, or NVIDIA's in a BatchNorm."""
    if layer.type == "BatchNorm":
        return len(blobs) == 5
    extra = blobs[len(told) :]
    return bool(extra) and all(
        mask.shape == blob.shape for mask, blob in zip(extra, blobs, strict=False)
    )


def _is(wanted: _Told, shape: Shape) -> bool:
    return len(wanted) == len(shape) and all(
        extent in (None, found) for extent, found in zip(wanted, shape, strict=True)
    )


def _text(told: _Told) -> str:
    return "x".join("?" if extent is None else str(extent) for extent in told) or "()"


def _listed(told: Sequence[_Told]) -> str:
    return ", ".join(_text(shape) for shape in told) or "none"
