"""Results as JSON: small ones, how their values are harmed, and all that reads them."""

import io
import json
import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

from pycaffe_prune.experiments.result import read_result
from pycaffe_prune.experiments.sensitivity.result import read_sensitivity
from pycaffe_prune.reports.outputs.html import render_html
from pycaffe_prune.reports.outputs.markdown import markdown
from pycaffe_prune.reports.outputs.summary import report_json
from pycaffe_prune.reports.outputs.write import print_summary
from pycaffe_prune.reports.plot import plot_of, preset_plots
from pycaffe_prune.reports.sensitivity.tables import print_sensitivity
from pycaffe_prune.screen import Screen
from pycaffe_prune.share import share_root

__all__ = [
    "draw_result",
    "draw_sensitivity",
    "repack_json",
    "report_result",
    "show_sensitivity",
    "small_result",
    "small_sensitivity",
]

_Harm = Callable[[bytes], bytes]
_ODD: tuple[Any, ...] = (
    None, True, 0, -1, 1, 0.5, -0.0, 1e-300, 1e300, 2**31, 2**63 - 1, 2**63, 10**400,
    float("nan"), float("inf"), "", "..", "a/b", "\x1b[31m", "[/x]", "<script>", "$x^{", "|`*\n",
    "\u202e", "\ud800", "x" * 3000, "connections", "small", "fc8", "ip1", "lenet-5", "caffenet",
    [], {}, [1], [[[]]], {"ip1": 1}, {"": 3},
)  # fmt: skip


def small_result() -> bytes:
    """A result with a point of each method, shorter than what is harmed as words."""
    content = json.loads((share_root() / "results/lenet-300-100/result.json").read_bytes())
    first: dict[str, Any] = {}
    for point in content["points"]:
        first.setdefault(point["method"], point)
        first[point["method"]].update(rounds=point["rounds"][-1:], selected=True)
    content.update(points=[*first.values()])
    return json.dumps(content, separators=(",", ":")).encode()


def small_sensitivity() -> bytes:
    """An analysis of two layers at three rates, with its suggestion."""
    path = share_root() / "results/sensitivity-lenet/sensitivity.json"
    content = json.loads(path.read_bytes())
    settings = content["settings"]
    settings.update(layers=settings["layers"][:2], rates=settings["rates"][:3])
    names = {layer["layer"] for layer in settings["layers"]}
    points = [one for one in content["points"] if one["layer"] in names]
    content.update(points=[one for one in points if one["rate"] in settings["rates"]])
    return json.dumps(content, separators=(",", ":")).encode()


def repack_json(content: bytes, harm: _Harm) -> bytes:
    """Return JSON in which one to three values have become others, gone, or come twice."""
    pick = random.Random(harm(bytes(64)))  # noqa: S311  (no secret)
    read = json.loads(content)
    for _ in range(pick.choice((1, 1, 2, 3))):
        holder, key = _place(read, pick)
        _alter(holder, key, pick)
    return json.dumps(read).encode()


def _place(read: Any, pick: random.Random) -> tuple[Any, Any]:
    """Return a list or an object that holds something, and a place in it."""
    while True:
        key = pick.choice([*read]) if isinstance(read, dict) else pick.randrange(len(read))
        value = read[key]
        if not isinstance(value, (dict, list)) or not value or pick.random() < 0.15:
            return read, key
        read = value


def _alter(holder: Any, key: Any, pick: random.Random) -> None:
    how = pick.choice(("odd", "odd", "odd", "gone", "other", "twice"))
    value = holder[key]
    if how == "odd":
        holder[key] = pick.choice(_ODD)
    elif how == "gone" and len(holder) > 1:  # what is empty has no place to go on with
        del holder[key]
    elif how == "other" and isinstance(value, (int, float)) and abs(value) < 2**64:
        holder[key] = value * pick.choice((-1, 0, 2, 0.5, 1 + 1e-12)) + pick.choice((0, 0, 1, -1))
    elif how == "twice" and isinstance(holder, list):
        holder.append(value)
    elif how == "twice":
        holder[f"{key} "] = value


def report_result(path: Path) -> object:
    """Make all of a report but its figures, which take as long as a hundred of these."""
    results = [read_result(path)]
    screen = Screen(width=120)
    screen.file = io.StringIO()
    print_summary(results[0], screen)
    preset_plots(results)
    return (
        markdown(results, ["figure.png"], []), report_json(results), render_html(results),
        plot_of(results[0]),
    )  # fmt: skip


def draw_result(path: Path) -> object:
    """Draw a report's figure."""
    from pycaffe_prune.reports.figures import svg

    return svg(plot_of(read_result(path)))


def show_sensitivity(path: Path) -> object:
    """Print an analysis as `caffe-prune sensitivity` does."""
    screen = Screen(width=120)
    screen.file = io.StringIO()
    print_sensitivity(read_sensitivity(path), screen)
    return screen.file.getvalue()


def draw_sensitivity(path: Path) -> object:
    """Draw the figure of an analysis."""
    from pycaffe_prune.reports.sensitivity.figure import svg

    return svg(read_sensitivity(path))
