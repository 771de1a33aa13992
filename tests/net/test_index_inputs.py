"""Which data blobs are taken as whole numbers."""

import numpy as np
import pytest
from google.protobuf import text_format

from pycaffe_prune.errors import SurgeryError
from pycaffe_prune.formats.caffe_pb2 import NetParameter
from pycaffe_prune.net.index_inputs import IndexUse, index_uses, require_indices

NET = """
layer { name: "words" type: "Input" top: "words" top: "cont" top: "x" top: "which" top: "rows"
  input_param { shape { dim: 3 dim: 4 } } }
layer { name: "cut" type: "Slice" bottom: "words" top: "first" top: "second" }
layer { name: "flat" type: "Flatten" bottom: "first" top: "flat" }
layer { name: "embed" type: "Embed" bottom: "flat" top: "e"
  embed_param { input_dim: 7 num_output: 2 } }
layer { name: "scaled" type: "Power" bottom: "x" top: "scaled" }
layer { name: "other" type: "Embed" bottom: "scaled" top: "o"
  embed_param { input_dim: 9 num_output: 2 } }
layer { name: "lstm" type: "LSTM" bottom: "x" bottom: "cont" top: "l" }
layer { name: "filter" type: "Filter" bottom: "x" bottom: "which" top: "f" }
layer { name: "reindex" type: "BatchReindex" bottom: "x" bottom: "rows" top: "r" }
layer { name: "early" type: "Embed" bottom: "words" top: "never" include { phase: TRAIN }
  embed_param { input_dim: 2 num_output: 2 } }
"""


def test_blobs_that_reach_such_a_bottom_unchanged_are_named_with_their_bound() -> None:
    assert index_uses(text_format.Parse(NET, NetParameter())) == {
        "words": [IndexUse("embed", "Embed", 7)],
        "cont": [IndexUse("lstm", "LSTM", 2)],
        "which": [IndexUse("filter", "Filter", 2)],
        "rows": [IndexUse("reindex", "BatchReindex", None)],
    }


@pytest.mark.parametrize(
    ("bound", "values", "valid"),
    [(3, [0, 2], True), (3, [0, 3], False), (3, [-1, 0], False), (3, [0.5, 1], False),
     (3, [np.nan, 0], False), (None, [0, 1], True), (None, [0, 2], False)],
)  # fmt: skip
def test_values_that_are_no_index_are_refused(
    bound: int | None, values: list[float], valid: bool
) -> None:
    data = {"x": np.array(values, np.float32), "free": np.array([-7.5], np.float32)}
    uses = {"x": [IndexUse("embed", "Embed", bound)]}
    if valid:
        require_indices(data, uses)
        return
    with pytest.raises(SurgeryError, match=r"'x' holds values that layer 'embed' \(Embed\)"):
        require_indices(data, uses)


REGIONS = [IndexUse("roi", "ROIPooling", None)]


@pytest.mark.parametrize(
    ("row", "valid"),
    [([1, 2, 3, 9, 8], True), ([0, 5, 5, 5, 5], True), ([0.5, 2, 3, 9, 8], False),
     ([-1, 2, 3, 9, 8], False), ([0, 9, 3, 2, 8], False), ([0, 2, 8, 9, 3], False),
     ([0, 2, 3, np.nan, 8], False), ([0, 2, 3, 9], False)],
)  # fmt: skip
def test_rows_that_are_no_region_are_refused(row: list[float], valid: bool) -> None:
    data = {"rois": np.array([row, row], np.float32)}
    if valid:
        require_indices(data, {"rois": REGIONS})
        return
    with pytest.raises(SurgeryError, match=r"'rois' .* layer 'roi' \(ROIPooling\) does not take"):
        require_indices(data, {"rois": REGIONS})
