import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pycaffe_prune.errors import SurgeryError
from pycaffe_prune.formats.caffe_pb2 import LayerParameter
from pycaffe_prune.formats.caffemodel import Caffemodel, Layer
from pycaffe_prune.pruning.connections import prune_connections, thresholds
from pycaffe_prune.pruning.counts import (
    LayerReduction,
    deleted_reduction,
    masked_reduction,
    overall,
    require_finite,
    weight_counts,
)

CAFFENET = {"fc6": 37_748_736, "fc7": 16_777_216, "fc8": 417_792}
# The paper's Table 5: reduction % of fc6, fc7, fc8, and of all fully connected layers, by alpha.
TABLE_5 = {
    0.5: (49.54, 47.13, 57.21, 48.86),
    0.6: (57.54, 55.14, 64.99, 56.86),
    0.8: (70.96, 69.04, 76.44, 70.42),
    1.0: (80.97, 79.77, 83.74, 80.62),
    1.3: (90.51, 90.27, 90.01, 90.43),
    1.5: (94.16, 94.28, 92.45, 94.18),
    1.6: (95.44, 95.64, 93.38, 95.49),
    1.7: (96.41, 96.66, 94.20, 96.47),
    1.8: (97.17, 97.43, 94.88, 97.23),
    1.9: (97.75, 98.02, 95.45, 97.81),
    2.0: (98.20, 98.45, 95.94, 98.26),
    2.2: (98.80, 99.03, 96.74, 98.85),
    2.4: (99.19, 99.40, 97.41, 99.24),
    2.6: (99.46, 99.64, 97.95, 99.50),
}


def layer(name: str, layer_type: str, *shapes: tuple[int, ...]) -> Layer:
    blobs = tuple(np.broadcast_to(np.float32(1), shape) for shape in shapes)
    return Layer(LayerParameter(name=name, type=layer_type), blobs)


def lenet_300_100(n1: int, n2: int) -> Caffemodel:
    return Caffemodel(
        (
            layer("mnist", "Data"),
            layer("ip1", "InnerProduct", (n1, 784), (n1,)),
            layer("relu1", "ReLU"),
            layer("ip2", "InnerProduct", (n2, n1), (n2,)),
            layer("ip3", "InnerProduct", (10, n2), (10,)),
        )
    )


LENET_5 = Caffemodel(
    (
        layer("conv1", "Convolution", (20, 1, 5, 5), (20,)),
        layer("conv2", "Convolution", (50, 20, 5, 5), (50,)),
        layer("ip1", "InnerProduct", (500, 800), (500,)),
        layer("relu1", "ReLU"),
        layer("ip2", "InnerProduct", (10, 500), (10,)),
    )
)

rows_of_layers = st.lists(
    st.integers(1, 10**8).flatmap(
        lambda weights: st.builds(
            LayerReduction, st.just("ip"), st.just(weights), st.integers(0, weights)
        )
    ),
    min_size=1,
    max_size=8,
)


@given(rows_of_layers)
def test_overall_is_the_weight_weighted_mean(rows: list[LayerReduction]) -> None:
    total = sum(row.weights for row in rows)
    mean = sum(row.reduction * row.weights / total for row in rows)
    assert overall(rows) == pytest.approx(mean, abs=1e-12)
    assert min(row.reduction for row in rows) - 1e-12 <= overall(rows)
    assert overall(rows) <= max(row.reduction for row in rows) + 1e-12


@pytest.mark.parametrize("alpha", TABLE_5)
def test_the_papers_overall_rate_follows_from_its_rates_per_layer(alpha: float) -> None:
    *rates, printed = TABLE_5[alpha]
    rows = [
        LayerReduction(name, weights, round(weights * (1 - rate / 100)))
        for (name, weights), rate in zip(CAFFENET.items(), rates, strict=True)
    ]
    assert 100 * overall(rows) == pytest.approx(printed, abs=0.01)


def test_only_weights_count_and_no_biases() -> None:
    assert weight_counts(LENET_5, ["ip1", "ip2"]) == {"ip1": 400_000, "ip2": 5_000}
    limits = thresholds(LENET_5, LENET_5, 1.0, ["ip1", "ip2"])
    _, masks = prune_connections(LENET_5, limits)
    rows = masked_reduction(masks)
    assert [(row.layer, row.weights) for row in rows] == [("ip1", 400_000), ("ip2", 5_000)]


def test_masked_reduction_counts_what_the_mask_keeps() -> None:
    mask = np.zeros((5, 8), np.bool_)
    mask[:2] = True
    (row,) = masked_reduction({("ip1", 0): mask})
    assert row == LayerReduction("ip1", 40, 16)
    assert row.reduction == pytest.approx(0.6)


@given(st.integers(1, 300), st.integers(1, 100))
def test_deleted_units_of_lenet_300_100_follow_the_formula(n1: int, n2: int) -> None:
    before, after = lenet_300_100(300, 100), lenet_300_100(n1, n2)
    rate = overall(deleted_reduction(before, after, ["ip1", "ip2", "ip3"]))
    assert rate == pytest.approx(1 - (784 * n1 + n1 * n2 + 10 * n2) / 266_200, abs=1e-12)


@pytest.mark.parametrize(("bad", "index"), [(np.nan, 0), (np.inf, 0), (-np.inf, 1)])
def test_values_that_are_not_finite_are_refused_with_layer_and_count(
    bad: float, index: int
) -> None:
    blobs = [np.ones((3, 4), np.float32), np.ones(3, np.float32)]
    blobs[index].reshape(-1)[1:3] = bad
    model = Caffemodel(
        (
            Layer(LayerParameter(name="good", type="InnerProduct"), (np.ones((2, 3), np.float32),)),
            Layer(LayerParameter(name="ip2", type="InnerProduct"), tuple(blobs)),
        )
    )
    require_finite(model, ["good"])
    extents = ("3x4", "3")[index]
    message = rf"layer 'ip2', blob {index} \({extents}\): 2 of {blobs[index].size} values"
    with pytest.raises(SurgeryError, match=message):
        require_finite(model, ["good", "ip2"])
