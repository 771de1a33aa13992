"""What an experiment takes beside its training: the sizes of a stage's net, and reports.

    python bench/reports.py [--points N ...]

The sizes (`pruning.sizes.model_sizes`, the compressed form among them) are measured once for each
stage that the plan trains, whose training takes seconds to minutes. Reports are of a result that is
kept, its points repeated with other seeds until there are so many. The last line is the ratio of
what each point costs that the last report adds, to each that the second adds: 1 where the time
grows with the points, more where it grows faster.
"""

import argparse
import io
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from functools import partial
from itertools import count, islice, pairwise
from pathlib import Path

from zoo_steps import random_weights

from pycaffe_prune.experiments.result import ExperimentResult, Point, read_result
from pycaffe_prune.formats.prototxt import read_net
from pycaffe_prune.pruning.connections import prune_to_ratios
from pycaffe_prune.pruning.sizes import model_sizes
from pycaffe_prune.reports.outputs.write import print_summary, write_reports
from pycaffe_prune.screen import Screen
from pycaffe_prune.share import share_root

POINTS = (500, 2_000, 10_000)
TARGET = 10.0
"""Processor seconds for ten thousand points."""
PRUNED = 0.98


def cpu_seconds(work: Callable[[], object]) -> float:
    """Processor seconds of this process's threads."""
    start = time.process_time()
    work()
    return time.process_time() - start


def sizes_of_a_stage() -> None:
    """Print what `model_sizes` takes for the nets of the paper's MNIST experiments."""
    for name in ("lenet_300_100", "lenet"):
        net = read_net(share_root() / "prototxt" / name / "deploy.prototxt")
        model = random_weights(net, {}, 1 << 24)
        layers = [layer.name for layer in model.layers if layer.blobs]
        pruned, _ = prune_to_ratios(model, dict.fromkeys(layers, PRUNED))
        seconds = min(cpu_seconds(partial(model_sizes, net, pruned)) for _ in range(5))
        print(f"{name}: sizes of a stage's net in {seconds:.3f} s")


def with_points(result: ExperimentResult, points: int) -> ExperimentResult:
    """The result with its points again and again, each time with another seed."""
    baseline, *others = result.points
    more: Iterator[Point] = (
        point.model_copy(update={"seed": seed}) for seed in count(1) for point in others
    )
    return result.model_copy(update={"points": (baseline, *islice(more, points - 1))})


def report(result: ExperimentResult, out: Path) -> None:
    """What a run ends with: the table on the terminal, and all the files."""
    screen = Screen(width=200)
    screen.file = io.StringIO()
    print_summary(result, screen)
    write_reports([result], out)


def main() -> None:
    """Measure both, and exit with 1 where ten thousand points miss the target."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--points", type=int, nargs="+", default=POINTS)
    asked = sorted(set(parser.parse_args().points))
    if len(asked) < 3 or asked[0] < 1:
        parser.error("--points takes at least three numbers")
    sizes_of_a_stage()
    result = read_result(share_root() / "results" / "lenet-300-100" / "result.json")
    took = {}
    with tempfile.TemporaryDirectory() as folder:
        report(result, Path(folder))  # what is loaded and drawn once
        for points in asked:
            many = with_points(result, points)
            took[points] = cpu_seconds(partial(report, many, Path(folder)))
            print(f"{points:,} points: {took[points]:.2f} s")
    added = [(took[more] - took[fewer]) / (more - fewer) * 1e3 for fewer, more in pairwise(asked)]
    most = asked[-1]
    print(f"target: {TARGET:g} s for 10,000 points")
    print(f"each point added: {added[0]:.2f} ms at first, {added[-1]:.2f} ms at last")
    print(f"at last / at first {added[-1] / added[0]:.2f}")
    sys.exit(took[most] > TARGET * max(1, most / 10_000))


if __name__ == "__main__":
    main()
