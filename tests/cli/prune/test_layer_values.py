import click
import pytest

from pycaffe_prune.cli.prune.layer_values import layer_values
from pycaffe_prune.errors import SurgeryError

LENET = [
    ("conv1", "Convolution"),
    ("conv2", "Convolution"),
    ("ip1", "InnerProduct"),
    ("ip2", "InnerProduct"),
]


@pytest.mark.parametrize(
    ("texts", "chosen", "values"),
    [
        (["1.5"], "InnerProduct", {"ip1": 1.5, "ip2": 1.5}),
        (["1.5"], None, dict.fromkeys(["conv1", "conv2", "ip1", "ip2"], 1.5)),
        (["ip1=2", "1"], "InnerProduct", {"ip1": 2, "ip2": 1}),
        (["1", "ip1=2"], "InnerProduct", {"ip1": 2, "ip2": 1}),
        (["1", "conv2=0.5"], "InnerProduct", {"conv2": 0.5, "ip1": 1, "ip2": 1}),
        (["conv*=0.5"], "InnerProduct", {"conv1": 0.5, "conv2": 0.5}),
        (["conv1=0.25", "conv*=0.5"], None, {"conv1": 0.25, "conv2": 0.5}),
        (["Convolution=0.5", "conv1=0.25"], None, {"conv1": 0.25, "conv2": 0.5}),
        (["ip2=1", "ip2=3"], None, {"ip2": 3}),
        (["1", "2"], "ip1", {"ip1": 2}),
        (["ip1=1"], "no such layer", {"ip1": 1}),
    ],
)
def test_the_more_particular_value_wins_and_then_the_last(
    texts: list[str], chosen: str | None, values: dict[str, float]
) -> None:
    found = layer_values(texts, LENET, chosen)
    assert found == values
    assert list(found) == [name for name, _ in LENET if name in values]


def test_a_name_may_hold_an_equals_sign_or_a_pattern() -> None:
    odd = [("a=b", "InnerProduct"), ("ip*", "InnerProduct"), ("ip1", "InnerProduct")]
    assert layer_values(["a=b=2", "ip*=1"], odd, None) == {"a=b": 2, "ip*": 1}


@pytest.mark.parametrize("text", ["half", "ip1=", "ip1=most", ""])
def test_what_is_no_number_is_a_fault_of_the_command_line(text: str) -> None:
    with pytest.raises(click.BadParameter, match="neither a number nor LAYER=number"):
        layer_values([text], LENET, None)


@pytest.mark.parametrize(("text", "chosen"), [("ip9=1", None), ("fc*=1", None), ("1", "fc*")])
def test_a_layer_that_is_not_there_is_refused(text: str, chosen: str | None) -> None:
    with pytest.raises(SurgeryError, match=r"no layer '.*' can be pruned so"):
        layer_values([text], LENET, chosen)
