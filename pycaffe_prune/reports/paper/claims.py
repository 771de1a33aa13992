"""What the paper claims of each experiment; `reports.paper.judge` tests it by rule."""

from typing import NamedTuple

from pycaffe_prune.reports.paper.figures_and_tables import Grade

__all__ = ["CLAIMS", "CROSS_CLAIMS", "NOTES", "Claim"]


class Claim(NamedTuple):
    """Something that a repetition should show, and what the paper says about it."""

    name: str
    text: str
    paper: str
    grade: Grade


_SMALL = Claim(
    "small-model",
    "A small model trained from scratch equals or beats unit pruning.",
    "The small model equals or beats unit pruning (MNIST is easy).",
    "certain",
)
_UNITS_BELOW = Claim(
    "units-below",
    "From a reduction of 90 % on, unit pruning lies below connection pruning.",
    "Connection pruning keeps its accuracy at clearly higher reduction than unit pruning.",
    "certain",
)


def _connections_90(figure: int) -> Claim:
    return Claim(
        "connections-90",
        "Connection pruning removes 90 % of the FC weights at hardly any cost.",
        f"Keeps its accuracy at high reduction; the points of figure {figure} cannot be read from "
        "the scan, the 0.5 points are this report's measure.",
        "likely",
    )


def _keeps(figure: int) -> Claim:
    return Claim(
        "keeps-baseline",
        "Connection pruning keeps the baseline's accuracy (within 0.5 points) up to some rate.",
        f"Higher than unit pruning's; the rate itself cannot be read from figure {figure}.",
        "certain",
    )


CLAIMS: dict[str, tuple[Claim, ...]] = {
    "lenet-300-100": (
        Claim(
            "baseline-300-100",
            "The unpruned network learns MNIST as the paper's does.",
            "98.x % (decimals lost in the scan, drawn close to the 98 line). 10,000 iterations "
            "of the tutorial's settings give 97.5 to 98.0 %, 100,000 give 98.3 to 98.4 %.",
            "likely",
        ),
        _connections_90(5),
        _UNITS_BELOW,
        _SMALL,
        _keeps(5),
    ),
    "lenet-5": (
        Claim(
            "baseline-5",
            "The unpruned network learns MNIST as the paper's does.",
            "99.10 %.",
            "certain",
        ),
        _connections_90(6),
        _UNITS_BELOW,
        _SMALL,
        _keeps(6),
    ),
    "caffenet-oxford102": (
        Claim(
            "baseline-caffenet",
            "The fine-tuned network knows the flowers as well as the paper's.",
            "91.82 %, over 124 batches of 50 that cycle through the 1,020 test images.",
            "certain",
        ),
        Claim(
            "units-above",
            "From a reduction of 80 % on, unit pruning is slightly better than connection pruning.",
            "The order turns on CaffeNet: unit pruning is slightly better.",
            "certain",
        ),
        Claim(
            "all-below",
            "From a reduction of 80 % on, all pruned networks lie below the baseline.",
            "All pruned models lie below the baseline.",
            "certain",
        ),
        Claim(
            "keeps-one-point",
            "Connection pruning loses at most 1 point up to a reduction of 90 %.",
            "Table 5: 0.80 points are lost at 90.43 % (alpha 1.3), 1.13 at 94.18 % (alpha 1.5).",
            "certain",
        ),
        Claim(
            "table-5",
            "Each row of table 5: the rates of fc6, fc7, fc8 and of all, and the accuracy lost.",
            "14 rows, alpha 0.5 to 2.6; 48.86 to 99.50 % of all FC weights.",
            "certain",
        ),
        Claim(
            "table-5-predicted",
            "The rates of table 5 follow from the fine-tuned network before any retraining.",
            "Not the paper's own claim: derived from table 5 and the solver's weight decay, which "
            "shrinks weights to 0.80 of their first size until the last prune.",
            "likely",
        ),
    ),
    "transfer_squeezenet_oxford102": (
        Claim(
            "units-above",
            "After transfer, from a reduction of 80 % on, unit pruning is slightly better than "
            "connection pruning.",
            "So it is for the fine-tuned CaffeNet; the paper does not have this network.",
            "certain",
        ),
        Claim(
            "all-below",
            "After transfer, from a reduction of 80 % on, all pruned networks lie below the "
            "baseline.",
            "So it is for CaffeNet; the paper does not have this network.",
            "certain",
        ),
        Claim(
            "keeps-one-point",
            "After transfer, connection pruning loses at most 1 point up to a reduction of 90 %.",
            "So it is for CaffeNet (table 5); the paper does not have this network.",
            "certain",
        ),
    ),
}
"""By the experiment's name."""

CROSS_CLAIMS: dict[Claim, tuple[str, str]] = {
    Claim(
        "lenet-5-loses-less",
        "LeNet-5 loses less than LeNet-300-100 at the same reduction of FC weights.",
        "LeNet-5 loses less: its convolutions are untouched.",
        "certain",
    ): ("lenet-5", "lenet-300-100"),
}
"""Claims about two experiments: the one that should lose less first."""

NOTES = {
    "transfer_squeezenet_oxford102": (
        "This is another network than the paper's: fully connected layers on the features of a "
        "SqueezeNet that was trained on ImageNet, in place of a fine-tuned CaffeNet. Its verdicts "
        "say whether the paper's findings on transfer hold here as well. Sizes leave out the "
        "SqueezeNet."
    ),
}
"""What a reader must know before the verdicts, by the experiment's name."""
