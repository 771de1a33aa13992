"""A whole sweep by this version and by an earlier one: paper-10k of LeNet-300-100, engine torch.

Each runs `caffe-prune reproduce` in an empty folder, as a user gives it, turn by turn; all counts,
from the start of the process to the report. The earlier one is taken from the repository's history.
Iterations are a twentieth of the preset's unless ``--whole`` is given.
Run with: .venv/bin/python bench/sweep_versions.py [--whole] [--data DIR] [--against REVISION]
"""

import argparse
import json
import os
import re
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

from data_prep.mnist import build_mnist

TARGET = 0.5
BEFORE = "3ae87cf"
PART = 20
HERE = Path(__file__).resolve().parent.parent
PRESET = HERE / "experiments" / "lenet-300-100.paper-10k.toml"


@dataclass(frozen=True)
class Ran:
    """What a sweep took, and what came out."""

    wall: float
    processor: float
    correct: dict[str, int]
    """Right answers after the last retraining, by point."""


def main() -> None:
    """Print the seconds of both versions in each turn, and the median of their ratios."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--whole", action="store_true", help="all iterations: about an hour")
    parser.add_argument("--data", type=Path, help="MNIST's LMDBs (default: built for this run)")
    parser.add_argument("--against", default=BEFORE, help="the earlier revision")
    parser.add_argument("--jobs", type=int, default=2)
    parser.add_argument("--turns", type=int, default=None, help="default: 3; 1 with --whole")
    options = parser.parse_args()
    turns = options.turns or (1 if options.whole else 3)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        data = options.data.resolve() if options.data else folder / "mnist"
        if options.data is None:
            build_mnist(data)
        toml = folder / "sweep.toml"
        toml.write_text(scaled(PRESET.read_text(), 1 if options.whole else PART))
        versions = {
            f"before ({options.against})": checked_out(options.against, folder),
            "now": HERE,
        }
        runs: dict[str, list[Ran]] = {version: [] for version in versions}
        for turn in range(turns):
            for version, place in versions.items():
                out = folder / f"run-{turn}-{place.name}"
                ran = swept(place, toml, data, out, options.jobs)
                runs[version].append(ran)
                print(f"{version:18} {ran.wall:.1f} s, {ran.processor:.1f} s of CPU", flush=True)
    old, new = runs.values()
    apart = [abs(old[0].correct[point] - new[0].correct[point]) for point in old[0].correct]
    print(
        f"right answers of 10,000 after retraining, {len(apart)} points: on average "
        f"{statistics.mean(apart):.1f} apart, at most {max(apart)}"
    )
    cpu = statistics.median(n.processor / o.processor for n, o in zip(new, old, strict=True))
    ratio = statistics.median(n.wall / o.wall for n, o in zip(new, old, strict=True))
    print(f"load of the machine at the end: {os.getloadavg()[0]:.1f}, {os.cpu_count()} cores")
    print(f"CPU now / before: {cpu:.2f}")
    print(f"wall now / before: {ratio:.2f} (target: at most {TARGET})")
    sys.exit(ratio > TARGET)


def scaled(preset: str, part: int) -> str:
    """Return a preset with a part (one in ...) of its iterations."""

    def less(found: re.Match[str]) -> str:
        return f"iterations = {int(found[1].replace('_', '')) // part}"

    return re.sub(r"^iterations = ([\d_]+)", less, preset, flags=re.MULTILINE)


def checked_out(revision: str, folder: Path) -> Path:
    """Put the files of a revision into a folder and return it."""
    place = folder / "before"
    place.mkdir()
    archive = ["git", "-C", str(HERE), "archive", revision]
    with subprocess.Popen(archive, stdout=subprocess.PIPE) as files:
        subprocess.run(["tar", "-x", "-C", str(place)], stdin=files.stdout, check=True)
    if files.returncode:
        sys.exit(f"git has no revision {revision} here")
    return place


def swept(version: Path, toml: Path, data: Path, out: Path, jobs: int) -> Ran:
    """Run the sweep in the folder of a version, whose package hides the one that is installed."""
    command = [sys.executable, "-m", "pycaffe_prune", "reproduce", str(toml), "--engine", "torch"]
    command += ["--data", str(data), "--out", str(out), "--jobs", str(jobs)]
    start, before = time.perf_counter(), _processor_seconds()
    done = subprocess.run(
        command,
        cwd=version,
        env={**os.environ, "PYTHONPATH": str(version)},
        capture_output=True,
        text=True,
        check=False,
    )
    wall, processor = time.perf_counter() - start, _processor_seconds() - before
    if done.returncode:
        sys.exit(f"{version}: {done.stderr[-2000:]}")
    result = json.loads((out / "result.json").read_text())
    correct = {
        f"{point['method']} {point['setting']} {point['seed']}": point["rounds"][-1]["after"][
            "correct"
        ]
        for point in result["points"]
    }
    return Ran(wall, processor, correct)


def _processor_seconds() -> float:
    """Of child processes that have ended, and of theirs."""
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


if __name__ == "__main__":
    main()
