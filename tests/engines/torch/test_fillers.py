import math

import numpy as np
import pytest
import torch
from google.protobuf import text_format
from scipy import stats

from pycaffe_prune.engines.torch.fillers import fill
from pycaffe_prune.errors import FormatError
from pycaffe_prune.formats.caffe_pb2 import FillerParameter


def filled(text: str, *shape: int, seed: int = 1) -> torch.Tensor:
    blob = torch.full(shape, torch.nan)
    filler = text_format.Parse(text, FillerParameter())
    fill(blob, filler, torch.Generator().manual_seed(seed))
    return blob


def uniform(bound: float) -> object:
    return stats.uniform(-bound, 2 * bound)


# A convolution of 30 inputs and 40 outputs: 30*5*5 values in, 40*5*5 out.
CONVOLUTION = (40, 30, 5, 5)
LAWS = [
    ('type: "uniform" min: 2 max: 5', CONVOLUTION, stats.uniform(2, 3)),
    ('type: "gaussian" mean: 2 std: 0.1', CONVOLUTION, stats.norm(2, 0.1)),
    ('type: "xavier"', CONVOLUTION, uniform(math.sqrt(3 / 750))),
    ('type: "xavier" variance_norm: FAN_OUT', CONVOLUTION, uniform(math.sqrt(3 / 1000))),
    ('type: "xavier" variance_norm: AVERAGE', CONVOLUTION, uniform(math.sqrt(3 / 875))),
    ('type: "msra"', CONVOLUTION, stats.norm(0, math.sqrt(2 / 750))),
    ('type: "msra" variance_norm: FAN_OUT', CONVOLUTION, stats.norm(0, math.sqrt(2 / 1000))),
    ('type: "xavier"', (30_000,), uniform(math.sqrt(3))),
    ('type: "xavier" variance_norm: FAN_OUT', (30_000,), uniform(math.sqrt(3 / 30_000))),
]


@pytest.mark.parametrize(("text", "shape", "law"), LAWS)
def test_values_follow_their_law(
    text: str, shape: tuple[int, ...], law: stats.distributions.rv_frozen
) -> None:
    blob = filled(text, *shape)
    assert stats.kstest(blob.reshape(-1).numpy(), law.cdf).pvalue > 0.001
    low, high = law.support()
    assert blob.min() >= np.float32(low)
    assert blob.max() <= np.float32(high)


def test_sparse_keeps_so_many_inputs_of_each_output_on_average() -> None:
    blob = filled('type: "gaussian" sparse: 8', 20, 5000)
    share = (blob != 0).float().mean()  # of Caffe's probability: sparse / outputs
    assert abs(share - 8 / 20) < 5 * math.sqrt(0.4 * 0.6 / blob.numel())


def test_positive_unitball_adds_up_to_one_for_each_output() -> None:
    blob = filled('type: "positive_unitball"', 7, 3, 4)
    assert (blob >= 0).all()
    np.testing.assert_allclose(blob.sum(dim=(1, 2)), np.ones(7), rtol=1e-5)


def test_bilinear_interpolates() -> None:
    line = torch.tensor([0.25, 0.75, 0.75, 0.25])
    assert torch.equal(
        filled('type: "bilinear"', 2, 3, 4, 4), torch.outer(line, line).expand(2, 3, 4, 4)
    )


def test_the_seed_decides_the_values_and_a_constant_draws_nothing() -> None:
    assert torch.equal(filled('type: "xavier"', 9, 9), filled('type: "xavier"', 9, 9))
    assert not torch.equal(filled('type: "xavier"', 9, 9), filled('type: "xavier"', 9, 9, seed=2))
    generator = torch.Generator().manual_seed(1)
    before = generator.get_state()
    fill(torch.empty(5), FillerParameter(value=3), generator)
    assert torch.equal(generator.get_state(), before)


@pytest.mark.parametrize(
    ("text", "shape", "sentence"),
    [
        ('type: "Xavier"', (2, 3), "'Xavier' is not known; use one of constant, uniform"),
        ('type: "xavier" sparse: 3', (2, 3), "sparse: 3, which only 'gaussian'"),
        ('type: "gaussian" sparse: 3', (2, 3), "sparse: 3, more than the 2 outputs of a blob 2x3"),
        ('type: "gaussian" std: 0', (2, 3), "std 0; it must be above 0"),
        ('type: "uniform" min: 2', (2, 3), "min 2 above max 1"),
        ('type: "xavier"', (), r"1 or more axes, not \(\)"),
        ('type: "msra"', (2, 0), "needs a blob with values"),
        ('type: "bilinear"', (3, 3), "4 or more axes, not 3x3"),
        ('type: "bilinear"', (2, 2, 3, 4), "the last two equal, not 2x2x3x4"),
    ],
)
def test_what_does_not_fit_is_refused(text: str, shape: tuple[int, ...], sentence: str) -> None:
    with pytest.raises(FormatError, match=sentence):
        filled(text, *shape)
