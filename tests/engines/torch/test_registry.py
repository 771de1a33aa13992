"""Which layer types there are."""

import pytest

from pycaffe_prune.engines.torch.layers.base import LayerSetup
from pycaffe_prune.engines.torch.layers.registry import LAYERS, make_layer
from pycaffe_prune.errors import EngineError
from pycaffe_prune.formats.caffe_pb2 import TRAIN, LayerParameter
from pycaffe_prune.net.shape_rules import RULES


def test_every_type_whose_shapes_are_known_has_layers_but_data() -> None:
    assert {kind for kind in RULES if kind not in LAYERS} == {
        kind for kind, rule in RULES.items() if rule.most == 0 and kind != "Parameter"
    }
    assert set(LAYERS) <= set(RULES)


def test_an_unknown_type_is_refused_with_its_name_and_a_remedy() -> None:
    param = LayerParameter(name="rec", type="Python")
    with pytest.raises(EngineError, match=r"layer 'rec' is of type 'Python'.*--engine caffe"):
        make_layer(LayerSetup(param, (), (), TRAIN))
