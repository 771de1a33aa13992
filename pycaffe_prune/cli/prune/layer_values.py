"""Options that give one value to all layers or one to each: ``V`` and ``LAYER=V``, repeatable."""

from collections.abc import Callable, Mapping, Sequence
from types import MappingProxyType
from typing import TypeVar

import click

from pycaffe_prune.pruning.selection import select_layers

__all__ = ["layer_values", "layer_wishes"]

_Value = TypeVar("_Value")
_NO_REASONS: Mapping[str, str] = MappingProxyType({})


def layer_values(
    texts: Sequence[str],
    candidates: Sequence[tuple[str, str]],
    chosen: str | None,
    left_out: Mapping[str, str] = _NO_REASONS,
) -> dict[str, float]:
    """Return the number of each layer that gets one, as `layer_wishes`."""
    return layer_wishes(texts, candidates, chosen, _number, left_out)


def layer_wishes(
    texts: Sequence[str],
    candidates: Sequence[tuple[str, str]],
    chosen: str | None,
    read: Callable[[str, str], _Value],
    left_out: Mapping[str, str] = _NO_REASONS,
) -> dict[str, _Value]:
    """Return the value of each layer that gets one, in the candidates' order.

    Args:
        texts: ``V``, for the ``chosen`` layers, or ``LAYER=V``, where LAYER is what `select_layers`
            takes. The more particular one wins: a name, then a pattern or type, then a plain V;
            of equals the last.
        candidates: Name and type of each layer that may be named.
        chosen: The layers that a plain V is for, as `select_layers` takes them.
        read: Gets V, and the whole text for a sentence; raises `click.BadParameter`.
        left_out: Why other layers are none of the candidates, as for `select_layers`.

    Raises:
        SurgeryError: A LAYER, or ``chosen`` where a plain V is given, names none of the candidates.
        click.BadParameter: A text is neither form.
    """
    names = {name for name, _ in candidates}
    plain: dict[str, _Value] = {}
    broad: dict[str, _Value] = {}
    exact: dict[str, _Value] = {}
    for text in texts:
        layer, equals, part = text.rpartition("=")
        value = read(part, text)
        if not equals:
            plain = dict.fromkeys(select_layers(candidates, chosen, left_out), value)
        elif layer in names:
            exact[layer] = value
        else:
            broad |= dict.fromkeys(select_layers(candidates, layer, left_out), value)
    values = plain | broad | exact
    return {name: values[name] for name in dict(candidates) if name in values}


def _number(text: str, whole: str) -> float:
    try:
        return float(text)
    except ValueError:
        raise click.BadParameter(f"'{whole}' is neither a number nor LAYER=number") from None
