"""Which tests of a net cannot count each image once; what they do then: test_net_tests.py."""

import pytest
from google.protobuf import text_format

from pycaffe_prune.engines.test_images import why_uncounted
from pycaffe_prune.engines.test_plan import plan_test
from pycaffe_prune.formats.caffe_pb2 import NetParameter

NET = """
layer { name: "d" type: "DummyData" top: "data" top: "label" top: "pass" }
layer { name: "pick" type: "%s" bottom: "data" %s top: "some" }
layer { name: "ip" type: "InnerProduct" bottom: "some" top: "ip" }
layer { name: "accuracy" type: "Accuracy" bottom: "ip" bottom: "label" top: "accuracy" }
"""


@pytest.mark.parametrize(("kind", "picks"), [("Filter", True), ("BatchReindex", True), ("ReLU", 0)])
def test_images_behind_a_layer_that_picks_them_are_not_counted(kind: str, picks: bool) -> None:
    text = NET % (kind, 'bottom: "pass"' if picks else "")
    layers = text_format.Parse(text, NetParameter()).layer
    told = why_uncounted(layers, plan_test(layers))
    assert (f"layer 'pick' ({kind}) in its TEST phase that picks images" in told) == picks
