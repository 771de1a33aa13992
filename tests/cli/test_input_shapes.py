import click
import pytest
from click.testing import CliRunner
from hypothesis import given
from hypothesis import strategies as st

from pycaffe_prune.cli.input_shapes import input_shapes_option
from pycaffe_prune.net.shapes import Shape


@click.command()
@input_shapes_option
def show(inputs: dict[str, Shape]) -> None:
    click.echo(repr(inputs))


names = st.text(st.characters(categories=["L", "Nd", "P"]), min_size=1).filter(
    lambda name: not name.startswith("-")
)


@given(st.dictionaries(names, st.lists(st.integers(1, 10**6), min_size=1).map(tuple), max_size=3))
def test_shapes_come_back_by_name(inputs: dict[str, Shape]) -> None:
    arguments = [
        f"--input-shape={name}={'x'.join(map(str, shape))}" for name, shape in inputs.items()
    ]
    result = CliRunner().invoke(show, arguments)
    assert result.output == repr(inputs) + "\n"


@pytest.mark.parametrize(
    "text", ["data", "=1x2", "data=", "data=1x", "data=axb", "data=0x3", "data=-1x3", "data=1.5"]
)
def test_another_form_is_a_usage_error(text: str) -> None:
    result = CliRunner().invoke(show, ["--input-shape", text])
    assert result.exit_code == 2
    assert f"'{text}' is not of the form data=64x1x28x28" in result.output
