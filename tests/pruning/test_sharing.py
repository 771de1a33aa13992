import numpy as np
import pytest
from google.protobuf import text_format

from pycaffe_prune.errors import FormatError, SurgeryError
from pycaffe_prune.formats.caffe_pb2 import LayerParameter, NetParameter
from pycaffe_prune.formats.caffemodel import Caffemodel, Layer
from pycaffe_prune.pruning.connections import apply_masks, prune_to_ratios
from pycaffe_prune.pruning.sharing import (
    masks_for_all,
    one_of_each,
    require_equal_blobs,
    shared_blobs,
)

NET = text_format.Parse(
    """
    layer { name: "ip1" type: "InnerProduct" param { name: "w" } param { name: "b" } }
    layer { name: "ip1_p" type: "InnerProduct" param { name: "w" } param { name: "b" } }
    layer { name: "ip2" type: "InnerProduct" param { name: "own" } param { lr_mult: 2 } }
    layer { name: "odd" type: "InnerProduct" param { name: "w" share_mode: PERMISSIVE } }
    layer { name: "ip2" type: "InnerProduct" param { name: "own" } include { phase: TEST } }
    """,
    NetParameter(),
)
SHARED = shared_blobs(NET)
RANDOM = np.random.default_rng(0)
WEIGHTS = RANDOM.normal(size=(4, 6)).astype(np.float32)


def model_of(**weights: np.ndarray) -> Caffemodel:
    return Caffemodel(
        tuple(
            Layer(LayerParameter(name=name, type="InnerProduct"), (blob,))
            for name, blob in weights.items()
        )
    )


MODEL = model_of(ip1=WEIGHTS, ip1_p=WEIGHTS.copy(), ip2=WEIGHTS * 2, odd=WEIGHTS.reshape(2, 12))


def test_blobs_with_one_param_name_are_found_and_those_of_one_layer_are_not() -> None:
    weights = (("ip1", 0), ("ip1_p", 0), ("odd", 0))
    biases = (("ip1", 1), ("ip1_p", 1))
    assert {**dict.fromkeys(weights, weights), **dict.fromkeys(biases, biases)} == SHARED


def test_of_sharers_the_first_chosen_one_stands_for_all() -> None:
    assert one_of_each(SHARED, ["ip1", "ip1_p", "ip2", "odd"]) == ["ip1", "ip2"]
    assert one_of_each(SHARED, ["odd", "ip2", "ip1"]) == ["odd", "ip2"]


def test_every_sharer_gets_the_same_zeros_in_its_own_shape() -> None:
    _, masks = prune_to_ratios(MODEL, {"ip1": 0.5, "ip2": 0.25})
    spread = masks_for_all(SHARED, MODEL, masks)
    assert set(spread) == {("ip1", 0), ("ip1_p", 0), ("ip2", 0), ("odd", 0)}
    pruned = apply_masks(MODEL, spread)
    first = pruned.layer("ip1").blobs[0]
    assert np.count_nonzero(first) == 12
    np.testing.assert_array_equal(pruned.layer("ip1_p").blobs[0], first)
    np.testing.assert_array_equal(pruned.layer("odd").blobs[0].reshape(4, 6), first)


def test_what_any_sharer_prunes_is_pruned_in_all() -> None:
    one, other = np.ones((4, 6), np.bool_), np.ones((4, 6), np.bool_)
    one[0], other[:, 0] = False, False
    spread = masks_for_all(SHARED, MODEL, {("ip1", 0): one, ("ip1_p", 0): other})
    np.testing.assert_array_equal(spread["ip1", 0], one & other)
    np.testing.assert_array_equal(spread["ip1_p", 0], one & other)
    np.testing.assert_array_equal(spread["odd", 0], (one & other).reshape(2, 12))


def test_a_sharer_that_the_file_holds_no_blob_of_needs_no_mask() -> None:
    owner_only = model_of(ip1=WEIGHTS)
    require_equal_blobs(SHARED, owner_only, ["ip1"])
    mask = np.ones((4, 6), np.bool_)
    assert list(masks_for_all(SHARED, owner_only, {("ip1", 0): mask})) == [("ip1", 0)]


def test_sharers_with_different_weights_are_refused() -> None:
    require_equal_blobs(SHARED, MODEL, ["ip1", "ip2"])
    changed = MODEL.with_blobs({("ip1_p", 0): WEIGHTS + 1})
    with pytest.raises(SurgeryError, match="'ip1' and 'ip1_p' share their weights"):
        require_equal_blobs(SHARED, changed, ["ip1"])
    require_equal_blobs(SHARED, changed, ["ip2"])


def test_a_mask_of_another_shape_or_layer_is_refused() -> None:
    with pytest.raises(SurgeryError, match="the mask is 6x4 but the weights are 4x6"):
        masks_for_all(SHARED, MODEL, {("ip1", 0): np.ones((6, 4), np.bool_)})
    with pytest.raises(FormatError, match="no layer 'ip9'"):
        masks_for_all(SHARED, MODEL, {("ip9", 0): np.ones((6, 4), np.bool_)})
