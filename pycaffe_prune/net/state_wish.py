"""The state of a net that a user chooses: phase, level and stages beside those of the file."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from pycaffe_prune.errors import FormatError
from pycaffe_prune.formats.caffe_pb2 import (
    TEST,
    TRAIN,
    LayerParameter,
    NetParameter,
    NetStateRule,
    Phase,
)
from pycaffe_prune.formats.prototxt import read_net
from pycaffe_prune.net.graph import NetState, layers_in_state, with_state

__all__ = [
    "OWN_STATE",
    "StateWish",
    "chosen_layers",
    "in_wished_state",
    "of_chosen_state",
    "only_layers_of",
    "read_net_in_state",
    "require_named",
    "with_state_of",
]


@dataclass(frozen=True)
class StateWish:
    """What a user says of the state in which a net is used, as pycaffe's ``Net`` takes it."""

    phase: Phase = TEST
    level: int | None = None
    """None: that of the net's own ``state``."""
    stages: tuple[str, ...] = ()
    """Beside those of the net's own ``state``."""

    def __bool__(self) -> bool:
        """Whether anything is chosen beside the phase."""
        return self.level is not None or bool(self.stages)


OWN_STATE = StateWish()
"""The phase TEST and the net's own level and stages."""


def in_wished_state(net: NetParameter, wish: StateWish, source: Path) -> NetParameter:
    """Return ``net`` with the wished level and stages in its ``state``; all layers stay.

    Raises:
        FormatError: As `require_named`.
    """
    if not wish:
        return net
    require_named([net], wish, source)
    return with_state(net, wish.level, wish.stages)


def read_net_in_state(path: Path, wish: StateWish) -> NetParameter:
    """Read a net and set the wished state in it.

    Raises:
        FormatError: As `read_net` and `require_named`.
    """
    return in_wished_state(read_net(path), wish, path)


def chosen_layers(net: NetParameter, wish: StateWish) -> list[LayerParameter]:
    """Return the layers of a net from `in_wished_state` that the wished phase has."""
    return layers_in_state(net, NetState.of(net, wish.phase))


def only_layers_of(net: NetParameter, wish: StateWish) -> NetParameter:
    """Return ``net`` with the layers of the wished state only and without the rules that chose.

    So whatever looks at the phase TEST sees the layers of TRAIN if they are wished.
    """
    chosen = NetParameter()
    chosen.CopyFrom(net)
    del chosen.layer[:]
    for layer in chosen_layers(net, wish):
        plain = chosen.layer.add()
        plain.CopyFrom(layer)
        for rules in ("include", "exclude"):
            plain.ClearField(rules)
    return chosen


def with_state_of(net: NetParameter, original: NetParameter) -> NetParameter:
    """Return ``net`` with the ``state`` of ``original``: what a user chose is not for its file."""
    restored = NetParameter()
    restored.CopyFrom(net)
    restored.ClearField("state")
    if original.HasField("state"):
        restored.state.CopyFrom(original.state)
    return restored


def of_chosen_state(
    candidates: Sequence[tuple[str, str]], net: NetParameter, wish: StateWish
) -> list[tuple[str, str]]:
    """Return those of the candidates that the net has in a wished level or stage.

    Args:
        candidates: Name and type of layers.
        net: From `in_wished_state`.
        wish: The state; without level or stage all candidates are in.
    """
    phases = [layers_in_state(net, NetState.of(net, phase)) for phase in (TRAIN, TEST)]
    there = {layer.name for layers in phases for layer in layers}
    return [one for one in candidates if not wish or one[0] in there]


def require_named(nets: Sequence[NetParameter], wish: StateWish, source: Path | str) -> None:
    """See that each wished stage, and a level, mean something to one of the ``nets`` at least.

    Caffe takes any; one that no rule asks for changes nothing, and is misspelt as a rule.

    Raises:
        FormatError: One does not.
    """
    rules = [rule for net in nets for rule in _rules(net)]
    named = sorted({stage for rule in rules for stage in (*rule.stage, *rule.not_stage)})
    if strange := [stage for stage in wish.stages if stage not in named]:
        raise FormatError(
            f"{source}: no include or exclude rule asks for the stage '{strange[0]}'; the stages "
            f"that are asked for: {', '.join(named) or 'none'}"
        )
    asked = any(rule.HasField(field) for rule in rules for field in ("min_level", "max_level"))
    if wish.level is not None and not asked:
        raise FormatError(
            f"{source}: no include or exclude rule has a min_level or max_level, so level "
            f"{wish.level} would change nothing; leave --level out"
        )


def _rules(net: NetParameter) -> Iterator[NetStateRule]:
    for layer in net.layer:
        yield from layer.include
        yield from layer.exclude
