"""Every command on every prototxt and caffemodel of a folder: which answer, refuse, or fail?

Each step runs in a child process with limits of time and memory. Nets get the weights of the folder
that fit them, else random ones. An outcome is one of: ok; refused (one sentence); left out (a step
before it was refused, or the net is too large); WRONG (an answer that a second way contradicts);
traceback; timeout; killed. Files are only read; all that is written goes into a temporary folder.
Nothing may be WRONG, and nothing may end by a traceback. Run with:
.venv/bin/python bench/zoo_sweep.py DIR... [--jobs N] [--json FILE]
With --json the outcomes are stored after each file, and files that are in FILE are not tried again.
"""

import argparse
import contextlib
import json
import multiprocessing
import os
import resource
import signal
import sys
import tempfile
import traceback
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from multiprocessing.connection import Connection
from pathlib import Path

import click
from zoo_steps import NET_STEPS, WEIGHT_STEPS, Case, LeftOutError, Step, WrongAnswerError

from pycaffe_prune.errors import PruneError
from pycaffe_prune.formats.prototxt import read_net, read_solver

OUTCOMES = ("ok", "refused", "left out", "WRONG", "traceback", "timeout", "killed")
FAULTS = OUTCOMES[3:]
_PRELOADED = [
    "zoo_steps",
    "onnxruntime",
    "pycaffe_prune.cli.convert.command",
    "pycaffe_prune.cli.inspect.command",
    "pycaffe_prune.cli.prune.command",
    "pycaffe_prune.cli.verify.command",
    "pycaffe_prune.convert.onnx_model",
]


@dataclass(frozen=True)
class Outcome:
    """What became of one step on one file."""

    step: str
    outcome: str
    sentence: str = ""


@dataclass(frozen=True)
class Limits:
    """What a child process may take."""

    seconds: float
    bytes: int


def _child(step: Step, case: Case, limits: Limits, answer: Connection) -> None:
    """Run one step; say what became of it through ``answer``."""
    os.setsid()  # so that the engines that it starts end with it
    resource.setrlimit(resource.RLIMIT_AS, (limits.bytes, limits.bytes))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    with open(os.devnull, "w") as nowhere:  # noqa: PTH123  (no path of ours)
        os.dup2(nowhere.fileno(), 1)
        os.dup2(nowhere.fileno(), 2)
    os.environ["COLUMNS"] = "200"
    try:
        step(case)
        answer.send(("ok", ""))
    except LeftOutError as reason:
        answer.send(("left out", str(reason)))
    except WrongAnswerError as error:
        answer.send(("WRONG", str(error)))
    except (PruneError, click.ClickException) as error:
        answer.send(("refused", str(error)))
    except MemoryError:
        answer.send(("killed", "out of memory"))
    except Exception as error:  # noqa: BLE001  (what is looked for is any)
        place = traceback.extract_tb(error.__traceback__)[-1]
        where = f"{Path(place.filename).name}:{place.lineno}"
        answer.send(("traceback", f"{type(error).__name__}: {error} ({where})"))


def limited(name: str, step: Step, case: Case, limits: Limits) -> Outcome:
    """Run a step in a child process and end it, and all that it started, when its time is up."""
    context = multiprocessing.get_context("forkserver")
    ours, theirs = context.Pipe(duplex=False)
    child = context.Process(target=_child, args=(step, case, limits, theirs))
    child.start()
    theirs.close()
    try:
        if not ours.poll(limits.seconds):
            return Outcome(name, "timeout", f"more than {limits.seconds:g} s")
        outcome, sentence = ours.recv()
        return Outcome(name, outcome, sentence)
    except EOFError:
        child.join()
        return Outcome(name, "killed", f"ended by {_ending(child.exitcode)}")
    finally:
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(child.pid or 0, signal.SIGKILL)
        child.join()


def _ending(code: int | None) -> str:
    return signal.Signals(-code).name if code is not None and code < 0 else f"exit code {code}"


def files_of(folders: Sequence[Path]) -> tuple[list[Path], list[Path]]:
    """Return the prototxts and the caffemodels of the folders, in order, each once."""
    found = dict.fromkeys(
        path
        for folder in folders
        for path in ([folder] if folder.is_file() else sorted(folder.rglob("*")))
        if path.is_file()
    )
    return (
        [path for path in found if path.suffix in (".prototxt", ".prototext", ".pt")],
        [path for path in found if path.name.endswith((".caffemodel", ".caffemodel.h5"))],
    )


def is_solver(path: Path) -> bool:
    """Whether a prototxt is a solver, which has no layers to try."""
    try:
        read_net(path)
    except PruneError:
        try:
            solver = read_solver(path)
        except PruneError:
            return False
        return solver.HasField("base_lr") or bool(solver.net or solver.train_net)
    return False


def sweep_file(
    path: Path, steps: Mapping[str, Step], models: Sequence[Path], limits: Limits, most: int
) -> list[Outcome]:
    """Try all steps on one file, in order."""
    with tempfile.TemporaryDirectory(prefix="zoo-sweep-") as work:
        case = Case(path.absolute(), Path(work), tuple(one.absolute() for one in models), most)
        return [limited(name, step, case, limits) for name, step in steps.items()]


Rows = dict[str, list[Outcome]]


def read_rows(path: Path | None) -> Rows:
    """Return what an earlier sweep stored."""
    if path is None or not path.is_file():
        return {}
    stored = json.loads(path.read_text())
    return {name: [Outcome(**one) for one in row] for name, row in stored["files"].items()}


def write_rows(path: Path, rows: Rows) -> None:
    """Store all outcomes, whole or not at all."""
    files = {name: [asdict(one) for one in row] for name, row in sorted(rows.items())}
    partial = path.with_name(path.name + ".partial")
    partial.write_text(json.dumps({"summary": summary(rows), "files": files}, indent=1) + "\n")
    partial.replace(path)


def summary(rows: Rows) -> dict[str, dict[str, int]]:
    """Return how often each step had which outcome."""
    counts: dict[str, Counter[str]] = {}
    for name, row in rows.items():
        kind = "weights" if name.endswith((".caffemodel", ".h5")) else "net"
        for one in row:
            counts.setdefault(f"{kind}: {one.step}", Counter())[one.outcome] += 1
    return {step: {name: found[name] for name in OUTCOMES} for step, found in counts.items()}


def show(rows: Rows) -> None:
    """Print the outcomes of each file, the faults in full, and the summary."""
    for name, row in sorted(rows.items()):
        print(name)
        for one in row:
            if one.outcome != "ok":
                print(f"  {one.step}: {one.outcome}: {one.sentence}")
    print()
    print(f"{'':24}" + "".join(f"{name:>11}" for name in OUTCOMES))
    for step, found in summary(rows).items():
        print(f"{step:24}" + "".join(f"{found[name]:11}" for name in OUTCOMES))


def sweep(
    folders: Sequence[Path], rows: Rows, limits: Limits, most: int, jobs: int
) -> Iterator[tuple[str, list[Outcome]]]:
    """Yield the outcomes of each file that is not in ``rows``, as they come."""
    nets, models = files_of(folders)
    todo = [(path, NET_STEPS) for path in nets if str(path) not in rows and not is_solver(path)]
    todo += [(path, WEIGHT_STEPS) for path in models if str(path) not in rows]
    with ThreadPoolExecutor(jobs) as pool:

        def work(one: tuple[Path, Mapping[str, Step]]) -> tuple[str, list[Outcome]]:
            return str(one[0]), sweep_file(*one, models, limits, most)

        yield from pool.map(work, todo)


def main() -> None:
    """Sweep, print the outcomes, and end with exit code 1 where one is a fault."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("folders", nargs="+", type=Path, metavar="DIR", help="or single files")
    parser.add_argument("--jobs", type=int, default=1, help="files at a time")
    parser.add_argument("--seconds", type=float, default=120.0, help="of one step")
    parser.add_argument("--memory", type=float, default=16.0, help="GiB of addresses of one step")
    parser.add_argument("--most-values", type=int, default=100_000_000, help="of random weights")
    parser.add_argument("--json", type=Path, help="file to store the outcomes in")
    told = parser.parse_args()
    limits = Limits(told.seconds, int(told.memory * 2**30))
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(_PRELOADED)
    rows = read_rows(told.json)
    for name, row in sweep(told.folders, rows, limits, told.most_values, told.jobs):
        rows[name] = row
        print(f"{len(rows)} files: {name}", file=sys.stderr)
        if told.json is not None:
            write_rows(told.json, rows)
    show(rows)
    if any(one.outcome in FAULTS for row in rows.values() for one in row):
        sys.exit(1)


if __name__ == "__main__":
    main()
