import pytest

from pycaffe_prune.engines.torch_engine.layers.base import LayerSetup
from pycaffe_prune.engines.torch_engine.layers.shaping import Eltwise
from pycaffe_prune.errors import EngineError
from pycaffe_prune.formats.caffe_pb2 import TRAIN, EltwiseParameter, LayerParameter


def test_a_product_takes_no_coefficients() -> None:
    param = LayerParameter(name="times", type="Eltwise")
    param.eltwise_param.operation = EltwiseParameter.PROD
    param.eltwise_param.coeff.extend([1, 2])
    with pytest.raises(EngineError, match=r"'times'.*PROD.*leave coeff out"):
        Eltwise(LayerSetup(param, ((2,), (2,)), ((2,),), TRAIN))
