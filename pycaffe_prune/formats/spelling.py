"""Which known name was meant by one that is not known."""

import difflib
from collections.abc import Collection

__all__ = ["distance", "nearest_name"]

_ENDING = "_param"
_ALIKE = 0.83


def nearest_name(name: str, known: Collection[str]) -> str:
    """Return the one of ``known`` that ``name`` is a slip of; "" where none is near.

    Near is a name one or two slips away (`distance`), for a short one one slip; of longer ones also
    what is alike in most of it.
    """
    most = 1 if len(name.removesuffix(_ENDING)) < 5 else 2
    near = [(distance(name, one), one) for one in known if abs(len(one) - len(name)) <= most]
    found = min((pair for pair in near if pair[0] <= most), default=None)
    if found is not None:
        return found[1]
    return "".join(difflib.get_close_matches(name, known, 1, _ALIKE))


def distance(one: str, other: str) -> int:
    """Return how many letters must be put in, taken out, changed or swapped with the next one."""
    before: list[int] = []
    row = list(range(len(other) + 1))
    for i, letter in enumerate(one, 1):
        last, row, before_last = row, [i], before
        for j, wanted in enumerate(other, 1):
            cost = min(last[j] + 1, row[j - 1] + 1, last[j - 1] + (letter != wanted))
            if i > 1 and j > 1 and (letter, one[i - 2]) == (other[j - 2], wanted):
                cost = min(cost, before_last[j - 2] + 1)
            row.append(cost)
        before = last
    return row[-1]
