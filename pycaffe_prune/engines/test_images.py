"""How many images a test has: each of them is counted once."""

from collections.abc import Sequence
from pathlib import Path

from pycaffe_prune.engines.net_data import records
from pycaffe_prune.engines.test_plan import TestPlan, label_source
from pycaffe_prune.errors import DataError, FormatError
from pycaffe_prune.formats.caffe_pb2 import LayerParameter
from pycaffe_prune.formats.hdf5_files import rows_shapes
from pycaffe_prune.net.graph import NetGraph

__all__ = ["image_count", "is_in_order", "why_uncounted"]

_COUNTED = frozenset({"Data", "HDF5Data", "ImageData"})
_PICKING = frozenset({"BatchReindex", "Filter"})


def why_uncounted(test: Sequence[LayerParameter], plan: TestPlan | None) -> str | None:
    """Return why no test of a net can count right answers; None: one can.

    Args:
        test: The layers of the TEST net.
        plan: Of these.
    """
    if plan is None:
        return "has no Accuracy or SoftmaxWithLoss layer with labels to test with"
    graph = NetGraph(test)
    judge = next(place for place, layer in enumerate(test) if layer.name == plan.layer)
    for place in sorted(graph.ancestors([judge])):
        if test[place].type in _PICKING:
            return (
                f"has a layer '{test[place].name}' ({test[place].type}) in its TEST phase that "
                "picks images, so that not each of them is judged once; judge by a layer that it "
                "does not feed"
            )
    source = label_source(test, plan)
    if source.type in _COUNTED:
        count = image_count(source)
        if not _is_shuffled(source) or count % plan.batch == 0:
            return None
        return (
            f"has a layer '{source.name}' ({source.type}) in its TEST phase that shuffles {count} "
            f"images and brings {plan.batch} at a time, so that a test has some twice; take "
            "shuffle away, or choose a batch_size that divides their number"
        )
    return (
        f"takes the labels '{plan.labels}' of its TEST phase from the layer '{source.name}' "
        f"({source.type}), whose images are not counted; bring them with a Data, ImageData or "
        "HDF5Data layer"
    )


def image_count(source: LayerParameter) -> int:
    """Return the images of a Data, ImageData or HDF5Data layer, whose paths are absolute.

    Raises:
        DataError: They cannot be read, or there are none.
    """
    if source.type == "Data":
        return records(source)
    count = _lines(source) if source.type == "ImageData" else _rows(source)
    if not count:
        raise DataError(f"layer '{source.name}' ({source.type}): its list holds no images")
    return count


def is_in_order(source: LayerParameter) -> bool:
    """Whether a layer brings its images in the same order each time, from the first one on."""
    skips = (source.data_param.rand_skip, source.image_data_param.rand_skip)
    return not (_is_shuffled(source) or any(skips))


def _is_shuffled(source: LayerParameter) -> bool:
    return bool(source.image_data_param.shuffle or source.hdf5_data_param.shuffle)


def _lines(source: LayerParameter) -> int:
    content = Path(source.image_data_param.source).read_bytes()
    return content.count(b"\n") + bool(content and not content.endswith(b"\n"))


def _rows(source: LayerParameter) -> int:
    names = Path(source.hdf5_data_param.source).read_text(encoding="utf-8").split()
    total = 0
    for name in names:
        try:
            total += rows_shapes(Path(name), source.top[:1])[0][0]
        except (FormatError, IndexError) as error:
            raise DataError(f"layer '{source.name}' (HDF5Data): {error}") from error
    return total
