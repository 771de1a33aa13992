import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pycaffe_prune.errors import FormatError
from pycaffe_prune.formats.compressed import gaps as gaps_module
from pycaffe_prune.formats.compressed.gaps import best_span, positions_of, tokens_of

gaps = st.lists(st.integers(0, 20) | st.sampled_from([255, 256, 257, 4095, 4096, 70_000]))


@settings(max_examples=40)
@given(gaps=gaps, span_bits=st.integers(0, 12), block=st.integers(1, 30))
def test_positions_come_back_by_any_span(gaps: list[int], span_bits: int, block: int) -> None:
    positions = np.cumsum(np.array(gaps, np.int64) + 1) - 1
    tokens = tokens_of(positions, span_bits)
    assert (tokens <= 1 << span_bits).all()
    size = int(positions[-1]) + 1 if gaps else 0
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(gaps_module, "_BLOCK", block)
        parts = list(positions_of(tokens, span_bits, size))
    assert [place for part in parts for place in part.tolist()] == positions.tolist()
    if gaps:
        with pytest.raises(FormatError, match="positions up to"):
            list(positions_of(tokens, span_bits, size - 1))


@settings(max_examples=20)
@given(gaps=gaps.filter(len))
def test_a_filler_ends_no_run(gaps: list[int]) -> None:
    """Tokens by a plain loop, one zero at a time."""
    positions = np.cumsum(np.array(gaps, np.int64) + 1) - 1
    tokens = []
    for gap in gaps:
        tokens += [16] * (gap // 16) + [gap % 16]
    assert tokens_of(positions, 4).tolist() == tokens


@pytest.mark.parametrize("share", [0.5, 0.1, 0.01, 0.0003])
def test_random_positions_take_their_entropy(share: float) -> None:
    kept = np.random.default_rng(4).random(300_000) < share
    share = kept.mean()
    entropy = -(share * np.log2(share) + (1 - share) * np.log2(1 - share)) * kept.size
    _, bits = best_span(np.flatnonzero(kept))
    assert entropy * 0.98 < bits < 1.02 * entropy + 2000
