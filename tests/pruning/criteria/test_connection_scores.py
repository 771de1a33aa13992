import numpy as np
import pytest

from pycaffe_prune.errors import SurgeryError
from pycaffe_prune.formats.caffe_pb2 import LayerParameter
from pycaffe_prune.formats.caffemodel import BlobKey, Caffemodel, Layer
from pycaffe_prune.pruning.connections import prune_to_global_ratio, prune_to_ratios
from pycaffe_prune.pruning.criteria.connection_scores import (
    CONNECTION_CRITERIA,
    connection_criterion,
    connection_scores,
    loss_increase,
    with_slope,
)

KEYS: list[BlobKey] = [("ip1", 0), ("ip2", 0)]
RANDOM = np.random.default_rng(7)
WEIGHTS = {key: RANDOM.normal(0, 1, (9, 9)).astype(np.float32) for key in KEYS}
CURVATURE = {key: RANDOM.random((9, 9), np.float32) for key in KEYS}
MODEL = Caffemodel(
    tuple(
        Layer(LayerParameter(name=name, type="InnerProduct"), (WEIGHTS[name, 0],))
        for name, _ in KEYS
    )
)


def test_magnitude_prunes_what_the_ratio_alone_prunes() -> None:
    scores = connection_scores("magnitude", WEIGHTS)
    ratios = {"ip1": 0.3, "ip2": 0.6}
    for scored, plain in [
        (prune_to_ratios(MODEL, ratios, None, scores), prune_to_ratios(MODEL, ratios)),
        (
            prune_to_global_ratio(MODEL, 0.4, KEYS, None, scores),
            prune_to_global_ratio(MODEL, 0.4, KEYS),
        ),
    ]:
        for key in KEYS:
            np.testing.assert_array_equal(scored[1][key], plain[1][key])


@pytest.mark.parametrize("criterion", ["obd", "fisher"])
def test_the_lowest_saliencies_go(criterion: str) -> None:
    scores = connection_scores(criterion, WEIGHTS, curvature=CURVATURE)
    _, masks = prune_to_global_ratio(MODEL, 0.5, KEYS, None, scores)
    saliency = {key: CURVATURE[key] * WEIGHTS[key].astype(np.float64) ** 2 / 2 for key in KEYS}
    gone = np.concatenate([saliency[key][~masks[key]] for key in KEYS])
    kept = np.concatenate([saliency[key][masks[key]] for key in KEYS])
    assert gone.size == 81
    assert gone.max() <= kept.min()
    lost = sum(loss_increase(WEIGHTS[key], CURVATURE[key], masks[key]) for key in KEYS)
    assert lost == pytest.approx(gone.sum())


def test_saliencies_too_small_for_a_float32_are_told_apart() -> None:
    weights = {("ip1", 0): np.array([2e-20, 1e-20, 3e-20], np.float32)}
    curvature = {("ip1", 0): np.full(3, 1e-20, np.float32)}
    (scores,) = connection_scores("obd", weights, curvature=curvature).values()
    np.testing.assert_array_equal(np.argsort(scores), [1, 0, 2])


def test_at_rest_against_decay_a_weight_costs_its_slope_as_well() -> None:
    """The loss c(w - 1)²/2 with decay d comes to rest at w = c/(c + d)."""
    c, d = 3.0, 0.5
    w = c / (c + d)
    rise = c / 2 - c * (w - 1) ** 2 / 2
    curvature = with_slope({("ip", 0): np.full(1, c, np.float32)}, d)
    weights, gone = np.full(1, w, np.float32), np.zeros(1, np.bool_)
    assert loss_increase(weights, curvature["ip", 0], gone) == pytest.approx(rise)
    with pytest.raises(SurgeryError, match="weight_decay is a number from 0 on"):
        with_slope(CURVATURE, -1)


def test_random_scores_are_a_blobs_own() -> None:
    def masks(ratio: float, seed: int = 0, keys: list[BlobKey] = KEYS) -> list[np.ndarray]:
        scores = connection_scores("random", {key: WEIGHTS[key] for key in keys}, seed=seed)
        found = prune_to_ratios(MODEL, dict.fromkeys(keys, ratio), None, scores)[1]
        return [found[key] for key in keys]

    first, second = masks(0.5)
    np.testing.assert_array_equal(masks(0.5, keys=KEYS[1:])[0], second)  # whatever else there is
    assert (first != second).any()
    assert (masks(0.5, seed=1)[0] != first).any()
    assert not (masks(0.8)[0] & ~first).any()  # more of the same seed is a part of less


def test_random_scores_do_not_look_at_the_weights() -> None:
    key: BlobKey = ("fc", 0)
    size = 40_000
    weights = {key: np.arange(size, dtype=np.float32)}
    (scores,) = connection_scores("random", weights, seed=3).values()
    kept = np.argsort(scores)[size // 2 :]
    # The mean of 20,000 of 40,000 places: 5 standard deviations of it are 510.
    assert abs(kept.mean() - size / 2) < 510


@pytest.mark.parametrize(
    ("curvature", "sentence"),
    [
        ({KEYS[0]: CURVATURE[KEYS[0]]}, "layer 'ip2', blob 0: the criterion 'obd' needs"),
        (CURVATURE | {KEYS[1]: np.ones((9, 8), np.float32)}, "9x8, its weights 9x9"),
        (CURVATURE | {KEYS[1]: -CURVATURE[KEYS[1]]}, "81 of its 81 second derivatives"),
        (CURVATURE | {KEYS[1]: np.full((9, 9), np.nan, np.float32)}, "NaN or infinite"),
    ],
)
def test_second_derivatives_that_cannot_be_are_refused(
    curvature: dict[BlobKey, np.ndarray], sentence: str
) -> None:
    with pytest.raises(SurgeryError, match=sentence):
        connection_scores("obd", WEIGHTS, curvature=curvature)


def test_an_unknown_criterion_is_refused_with_those_that_there_are() -> None:
    with pytest.raises(SurgeryError, match="'brain'; there are: fisher, magnitude, obd, random"):
        connection_criterion("brain")
    assert all(connection_criterion(name) for name in CONNECTION_CRITERIA)
