"""The worker's own copy of the rules of few bits."""

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from pycaffe_prune.engines.caffe.caffe_worker import few_bits as worker
from pycaffe_prune.pruning.few_bits import level_rule, on_few_levels

SHAPE = (5, 7)
weights = arrays(np.float32, SHAPE, elements=st.floats(-8, 8, width=32, allow_subnormal=False))
rules = st.sampled_from(["binary", "ternary", "1bit", "3bits", "8bits", "2bits:min-max"])


@settings(max_examples=60)
@given(weights, rules.map(level_rule), st.none() | arrays(np.bool_, SHAPE))
def test_levels_are_those_of_pruning(blob, rule, kept):
    ours = worker.on_few_levels(blob, rule.rule, rule.bits, kept)

    assert ours.dtype == np.float32
    assert np.array_equal(ours, on_few_levels(blob, rule, kept))
