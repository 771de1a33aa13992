"""A study as files: numbers, tables, figure."""

from collections.abc import Iterable, Sequence
from pathlib import Path
from statistics import mean

from pycaffe_prune.formats.files import atomic_write, write_text
from pycaffe_prune.reports.transfer.study import Measured, TransferStudy, Variant
from pycaffe_prune.reports.transfer.weights import SHOWN_ALPHAS, LayerShape, UnitSpread

__all__ = ["markdown", "write_study"]

_SAID = {
    "above": "unit pruning is better",
    "below": "connection pruning is better",
    "within noise": "neither is clearly better",
}
_CHANGED = {
    "above": "pre-training favours unit pruning",
    "below": "pre-training favours connection pruning",
    "within noise": "no clear change",
}


def write_study(study: TransferStudy, out: Path) -> Path:
    """Write ``transfer.json``, ``transfer.md``, ``transfer.png`` and ``.svg`` into ``out``.

    Everything is made before anything is written.

    Returns:
        The path of ``transfer.md``.

    Raises:
        PruneError: The folder cannot be written to.
    """
    from pycaffe_prune.reports.transfer.figure import png, svg  # matplotlib takes a second

    pictures = {"transfer.png": png(study), "transfer.svg": svg(study)}
    texts = {
        "transfer.json": study.model_dump_json(indent=1) + "\n",
        "transfer.md": markdown(study),
    }
    for name, content in pictures.items():
        with atomic_write(out / name) as temporary:
            temporary.write_bytes(content)
    for name, text in texts.items():
        write_text(out / name, text)
    return out / "transfer.md"


def markdown(study: TransferStudy) -> str:
    """Return the study as a page: verdicts, curves, weights."""
    both = (("pre-trained", study.pretrained), ("from random values", study.control))
    return "\n".join(
        [
            f"# {study.title}: what pre-training changes",
            "",
            "![Curves and their order](transfer.png)",
            "",
            *_verdicts(study, both),
            "",
            *_levels(study),
            "",
            *_weights(study),
            "",
        ]
    )


def _row(cells: Iterable[str]) -> str:
    return f"| {' | '.join(cells)} |"


def _verdicts(study: TransferStudy, both: Sequence[tuple[str, Variant]]) -> list[str]:
    lines = [
        _row(["", "unpruned", "units lose", "connections lose", "units minus connections", ""]),
        _row(["---", "---:", "---:", "---:", "---:", "---"]),
    ]
    for name, variant in both:
        lines.append(
            _row(
                [
                    name,
                    f"{mean(variant.baseline):.2f} %",
                    f"{variant.lost['units']:.2f}",
                    f"{variant.lost['connections']:.2f}",
                    _shown(variant.order),
                    _SAID[variant.order.side],
                ]
            )
        )
    lines.append(_row(["change", "", "", "", _shown(study.change), _CHANGED[study.change.side]]))
    for name, found, said in (
        ("pre-trained, one set", study.pretrained.order_after_one_set, _SAID),
        ("from random values, one set", study.control.order_after_one_set, _SAID),
        ("change, one set", study.change_after_one_set, _CHANGED),
    ):
        if found is not None:
            lines.append(_row([name, "", "", "", _shown(found), said[found.side]]))
    seeds = len(study.pretrained.seeds)
    told = (
        f"Means over {seeds} seeds and {len(study.pretrained.levels)} levels of reduction, "
        f"{study.test_images:,} test images; points of accuracy. In brackets the 95 % intervals "
        "over images, then over seeds; a verdict needs both. One set: connection-pruned nets as "
        "they are after their first retraining, trained as long as the unit-pruned ones; "
        f"{study.levels_after_one_set} of the levels lie within those curves."
    )
    return [*lines, "", told]


def _shown(found: Measured) -> str:
    intervals = [found.over_images, *([found.over_seeds] if found.over_seeds else [])]
    told = "; ".join(f"{low:+.2f} to {high:+.2f}" for low, high in intervals)
    return f"{found.points:+.2f} ({told})"


def _levels(study: TransferStudy) -> list[str]:
    lines = [
        "## Accuracy at equal reduction",
        "",
        _row(
            [
                "reduction",
                "units, pre-trained",
                "connections, pre-trained",
                "difference",
                "units, random",
                "connections, random",
                "difference",
            ]
        ),
        _row(["---:"] * 7),
    ]
    others = {level.setting: level for level in study.control.levels}
    for level in study.pretrained.levels:
        cells = [f"{level.reduction:.2f} %"]
        for row in (level, others[level.setting]):
            cells += [f"{row.units:.2f}", f"{row.connections:.2f}"]
            cells.append(f"{row.difference.points:+.2f}{_MARKS[row.difference.side]}")
        lines.append(_row(cells))
    return [*lines, "", "Bold: clear of noise, all levels of a column together at 95 %."]


_MARKS = {"above": " **above**", "below": " **below**", "within noise": ""}


def _weights(study: TransferStudy) -> list[str]:
    nets = [*study.pretrained.nets, *study.control.nets]
    stages = list(dict.fromkeys(net.stage for net in nets))
    lines = [
        "## Weights of the unpruned nets",
        "",
        _row(["layer", "net", "kurtosis", *(f"below {alpha:g} sigma" for alpha in SHOWN_ALPHAS)]),
        _row(["---", "---", "---:", *["---:"] * len(SHOWN_ALPHAS)]),
    ]
    for place in range(len(nets[0].shape.layers)):
        for stage in stages:
            rows = [net.shape.layers[place] for net in nets if net.stage == stage]
            lines.append(_row([rows[0].layer, stage, *_layer_cells(rows)]))
    lines += [
        "",
        _row(["units of", "net", "onorm: deviation / mean", "held by the greatest tenth"]),
        _row(["---", "---", "---:", "---:"]),
    ]
    for place in range(len(nets[0].shape.units)):
        for stage in stages:
            spreads = [net.shape.units[place] for net in nets if net.stage == stage]
            lines.append(_row([spreads[0].layer, stage, *_unit_cells(spreads)]))
    told = (
        "From the lowest to the greatest of the seeds where they differ. A normal distribution has "
        "a kurtosis of 3 and 38.3, 68.3, 89.0 and 97.2 % below these multiples of sigma."
    )
    return [*lines, "", told]


def _layer_cells(rows: Sequence[LayerShape]) -> list[str]:
    shares = [
        _range([100 * row.below[f"{alpha:g}"] for row in rows], "{:.1f} %")
        for alpha in SHOWN_ALPHAS
    ]
    return [_range([row.kurtosis for row in rows], "{:.2f}"), *shares]


def _unit_cells(rows: Sequence[UnitSpread]) -> list[str]:
    return [
        _range([row.variation for row in rows], "{:.3f}"),
        _range([100 * row.top_tenth for row in rows], "{:.1f} %"),
    ]


def _range(values: Sequence[float], form: str) -> str:
    low, high = form.format(min(values)), form.format(max(values))
    return low if low == high else f"{low.removesuffix(' %')} to {high}"
