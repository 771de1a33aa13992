"""Which layers lose their units together, and which of their channels may go."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from pycaffe_prune.errors import SurgeryError
from pycaffe_prune.net.channels import Channels, Grouping, Ids
from pycaffe_prune.pruning.criteria.units import Scores, units_to_delete

__all__ = ["Coupled", "channels_to_delete", "coupled_layers", "lowest_over_all"]


@dataclass(frozen=True)
class Coupled:
    """Layers whose units are chosen at once: one alone, or the terms of an Eltwise sum, say."""

    layers: tuple[str, ...]
    ids: Ids
    """Their channels, ascending."""
    groupings: tuple[Grouping, ...]
    """Groups of Convolutions that these channels make up; equally many stay in each."""


def coupled_layers(channels: Channels) -> list[Coupled]:
    """Return all layers with units, each with those that it is coupled with, in the net's order."""
    names = list(channels.units)
    parent = dict(zip(names, names, strict=True))

    def find(name: str) -> str:
        while parent[name] != name:
            name = parent[name]
        return name

    maker: dict[int, str] = {}
    for name, ids in channels.units.items():
        for channel in ids.tolist():
            parent[find(name)] = find(maker.setdefault(channel, name))
    for grouping in channels.groupings:
        makers = {
            maker[channel] for channel in grouping.ids.reshape(-1).tolist() if channel in maker
        }
        for one, other in zip(sorted(makers), sorted(makers)[1:], strict=False):
            parent[find(one)] = find(other)
    members: dict[str, list[str]] = {}
    for name in names:
        members.setdefault(find(name), []).append(name)
    return [_coupled(channels, layers) for layers in members.values()]


def _coupled(channels: Channels, layers: Sequence[str]) -> Coupled:
    ids = np.unique(np.concatenate([channels.units[name] for name in layers]))
    distinct = {
        (grouping.ids.shape, grouping.ids.tobytes()): grouping
        for grouping in channels.groupings
        if np.isin(grouping.ids, ids).any()
    }
    return Coupled(tuple(layers), ids, tuple(distinct.values()))


def channels_to_delete(channels: Channels, coupled: Coupled, scores: Scores, ratio: float) -> Ids:
    """Choose the channels with the lowest scores.

    A share ``ratio`` of them goes, rounded; under groups, the same number from each. Channels that
    are fixed stay, and so does one unit of each layer and one channel of each top of a Slice.

    Args:
        channels: All channels of the net.
        coupled: Those to choose from.
        scores: Shape (len(coupled.ids),); among equal scores the earlier channel goes first.
        ratio: Share to delete, 0 <= ratio < 1.

    Raises:
        SurgeryError: The ratio is out of range, or the groups of several Convolutions cannot be
            kept equal at once.
    """
    order = coupled.ids[np.argsort(scores, kind="stable")]
    cells = list(_cells(coupled))
    keepers = _Keepers(channels, coupled.layers)
    chosen = []
    for cell in cells:
        wanted = units_to_delete(int(np.isin(cell, coupled.ids).sum()), ratio)
        candidates = (c for c in order[np.isin(order, cell)].tolist() if c not in channels.fixed)
        chosen.append(keepers.take(candidates, wanted))
    if coupled.groupings:
        # The last cell may be the channels outside all groups: they need not match.
        grouped = coupled.groupings[0].ids
        equal = [np.isin(cell, grouped).all() for cell in cells]
        most = min(len(taken) for taken, same in zip(chosen, equal, strict=True) if same)
        chosen = [
            taken[:most] if same else taken for taken, same in zip(chosen, equal, strict=True)
        ]
    return _evened(coupled, [channel for taken in chosen for channel in taken])


def lowest_over_all(
    channels: Channels, sets: Sequence[Coupled], scores: Sequence[Scores], wanted: int
) -> Ids:
    """Choose the ``wanted`` channels of several sets with the lowest scores, or as many as can go.

    Channels that are fixed stay, and so does one unit of each layer and one channel of each top of
    a Slice.

    Args:
        channels: All channels of the net.
        sets: Those to choose from, without groups.
        scores: Of each set, shape (len(ids),); among equal ones the earlier channel goes first.
        wanted: How many.
    """
    ids = np.concatenate([coupled.ids for coupled in sets])
    order = ids[np.argsort(np.concatenate(scores), kind="stable")]
    keepers = _Keepers(channels, [name for coupled in sets for name in coupled.layers])
    candidates = (channel for channel in order.tolist() if channel not in channels.fixed)
    return np.array(keepers.take(candidates, wanted), np.int64)


def _evened(coupled: Coupled, gone: list[int]) -> Ids:
    """Let the last chosen stay until equally many do in every group: groupings may overlap."""
    left = list(gone)
    uneven = True
    while uneven:
        uneven = False
        for grouping in coupled.groupings:
            counts = np.isin(grouping.ids, left).sum(axis=1)
            for row, count in zip(grouping.ids.tolist(), counts.tolist(), strict=True):
                extra = count - int(counts.min())
                for channel in [one for one in left if one in row][::-1][:extra]:
                    left.remove(channel)
                    uneven = True
    return np.array(left, np.int64)


def _cells(coupled: Coupled) -> Iterator[Ids]:
    """The sets of channels of which equally many go, and the rest."""
    if not coupled.groupings:
        yield coupled.ids
        return
    finest = max(coupled.groupings, key=lambda grouping: grouping.ids.shape[0])
    blocks = list({block.tobytes(): block for block in map(np.unique, finest.ids)}.values())
    for grouping in coupled.groupings:
        rows = [np.unique(row) for row in grouping.ids]
        for block in blocks:
            if not any(np.isin(block, row).all() for row in rows):
                raise SurgeryError(
                    f"layers '{finest.layer}' and '{grouping.layer}' take the same channels in "
                    f"groups of different kinds ({finest.ids.shape[0]} and "
                    f"{grouping.ids.shape[0]}), which no choice of units of "
                    f"{', '.join(coupled.layers)} keeps equal; leave these out with --layers"
                )
    grouped = np.concatenate(blocks)
    if len(np.unique(grouped)) < len(grouped):
        raise SurgeryError(
            f"layer '{finest.layer}' reads a channel in several of its groups; leave "
            f"{', '.join(coupled.layers)} out with --layers"
        )
    yield from blocks
    rest = np.setdiff1d(coupled.ids, grouped)
    if rest.size:
        yield rest


class _Keepers:
    """Sees to it that nothing loses its last channel."""

    def __init__(self, channels: Channels, layers: Sequence[str]) -> None:
        sets = [channels.units[name] for name in layers]
        sets += [ids for tops in channels.slices.values() for ids in tops]
        self._left = [len(ids) for ids in sets]
        self._uses: dict[int, list[int]] = {}
        for number, ids in enumerate(sets):
            for channel in ids.tolist():
                self._uses.setdefault(channel, []).append(number)

    def take(self, candidates: Iterator[int], wanted: int) -> list[int]:
        """Return the first ``wanted`` candidates that may go."""
        taken: list[int] = []
        for channel in candidates:
            if len(taken) == wanted:
                break
            uses = self._uses.get(channel, [])
            if all(self._left[number] > uses.count(number) for number in uses):
                taken.append(channel)
                for number in uses:
                    self._left[number] -= 1
        return taken
