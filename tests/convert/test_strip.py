from collections.abc import Callable

import pytest

from pycaffe_prune.convert.strip import strip_training
from pycaffe_prune.formats.caffe_pb2 import NetParameter

NetOf = Callable[[str], NetParameter]
INPUT = 'layer { name: "data" type: "Input" top: "data" } '
DROP = 'layer { name: "drop" type: "Dropout" bottom: "data" top: "drop" } '


def relu(bottom: str, top: str) -> str:
    return f'layer {{ name: "relu_{bottom}_{top}" type: "ReLU" bottom: "{bottom}" top: "{top}" }} '


CASES = {
    "in place": (
        INPUT + DROP.replace('"drop" }', '"data" }') + relu("data", "y"),
        INPUT + relu("data", "y"),
    ),
    "of its own blob": (
        INPUT + DROP + relu("drop", "y"),
        INPUT + relu("drop", "y").replace('bottom: "drop"', 'bottom: "data"'),
    ),
    "before a layer in place": (
        INPUT + DROP + relu("drop", "drop") + relu("drop", "y"),
        INPUT
        + relu("drop", "drop").replace('bottom: "drop" top: "drop"', 'bottom: "data" top: "data"')
        + relu("drop", "y").replace('bottom: "drop"', 'bottom: "data"'),
    ),
    "two in a row": (
        INPUT
        + DROP
        + DROP.replace('"drop"', '"two"').replace('"data"', '"drop"')
        + relu("two", "y"),
        INPUT + relu("two", "y").replace('bottom: "two"', 'bottom: "data"'),
    ),
    "an output": (INPUT + DROP, INPUT + DROP),
    "of a blob that others read": (
        INPUT + DROP + relu("drop", "y") + relu("data", "z"),
        INPUT + DROP + relu("drop", "y") + relu("data", "z"),
    ),
    "its name used again": (
        INPUT + DROP + relu("drop", "y") + relu("y", "drop") + relu("drop", "z"),
        INPUT
        + relu("drop", "y").replace('bottom: "drop"', 'bottom: "data"')
        + relu("y", "drop")
        + relu("drop", "z"),
    ),
}


@pytest.mark.parametrize("name", CASES)
def test_dropout_goes_where_nothing_else_changes(name: str, net_of: NetOf) -> None:
    before, after = (net_of(text) for text in CASES[name])
    assert strip_training(before) == after
    assert strip_training(after) == after
