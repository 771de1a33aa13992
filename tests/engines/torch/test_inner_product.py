"""What Embed refuses; values of both layers: tests/parity."""

import pytest
import torch

from tests.parity.comparison import build_layer, parse_layer


@pytest.mark.parametrize("index", [-1, 3])
def test_an_index_without_a_row_is_refused(index: int) -> None:
    settings = "embed_param { input_dim: 3 num_output: 2 }"
    layer = build_layer(parse_layer("Embed", settings), [(1,)])
    with pytest.raises(IndexError):
        layer.forward([torch.tensor([float(index)])], [torch.zeros(3, 2), torch.zeros(2)])


def test_rows_are_taken_in_the_order_of_channels_height_and_width() -> None:
    settings = "inner_product_param { num_output: 1 bias_term: false }"
    layer = build_layer(parse_layer("InnerProduct", settings), [(1, 2, 2, 2)])
    bottom = torch.arange(8.0).reshape(1, 2, 2, 2).contiguous(memory_format=torch.channels_last)
    weight = 10 ** torch.arange(7.0, -1, -1)[None]
    assert layer.forward([bottom], [weight])[0].item() == 1234567
