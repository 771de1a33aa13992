"""Try readers on damaged files for minutes or hours: bench/fuzz.py --minutes 60 --out FOLDER.

Each input is an honest small file of a format, harmed at random. A reader may accept it, or refuse
it with the package's own error ("clean"). Counted besides are other exceptions, crashes, inputs
that take more than 10 seconds of CPU time, and those that take more than 1 GiB; they are saved in
FOLDER/found. The same command goes on where it was: counts and minutes are kept in FOLDER.
"""

import argparse
import json
import mmap
import os
import random
import resource
import shutil
import signal
import sys
import tempfile
import time
import traceback
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from fuzz_corpus import Format, make_formats
from fuzz_harm import harmed

from pycaffe_prune.errors import PruneError

_KINDS = ("accepted", "clean", "other", "crash", "slow", "memory")
_SLOW_SECONDS = 10  # of CPU time, so that a busy machine does not count
_HANGS_SECONDS = 180  # of the clock
_MOST_MEMORY = 1 << 30
_FULL = 77  # exit code of a worker whose peak of memory says nothing any more
_OFTEN = 8  # how many inputs a fast format gets for one of a slow one


@dataclass
class _Counts:
    """What came of the inputs, in memory that the workers share with their parent."""

    formats: Sequence[Format]
    workers: int
    table: np.ndarray = field(init=False)
    """Formats × kinds."""
    current: np.ndarray = field(init=False)
    """Workers × (format, nanoseconds at which its input began; 0: none)."""

    def __post_init__(self) -> None:
        cells = len(self.formats) * len(_KINDS)
        shared = mmap.mmap(-1, 8 * (cells + 2 * self.workers))
        self.table = np.frombuffer(shared, np.int64, cells).reshape(-1, len(_KINDS))
        self.current = np.frombuffer(shared, np.int64, offset=8 * cells).reshape(-1, 2)

    def add(self, number: int, kind: str) -> None:
        self.table[number, _KINDS.index(kind)] += 1


class _Worker:
    """Harms and reads one input after the other."""

    def __init__(self, counts: _Counts, place: int, out: Path, scratch: Path) -> None:
        self._counts, self._place, self._out, self._scratch = counts, place, out, scratch

    def run(self, seed: int, end: float) -> None:
        os.dup2(os.open(os.devnull, os.O_WRONLY), 2)  # OpenCV's libraries tell of each input
        pick = random.Random(seed)  # noqa: S311  (no secret)
        weights = [1 if one.is_slow else _OFTEN for one in self._counts.formats]
        numbers = range(len(weights))
        while time.monotonic() < end:
            for number in pick.choices(numbers, weights, k=100):
                self._try(number, pick)
        os._exit(0)

    def _try(self, number: int, pick: random.Random) -> None:
        one = self._counts.formats[number]
        folder = self._scratch / str(number)
        if not folder.exists():
            folder.mkdir()
            for name, content in one.beside.items():
                (folder / name).write_bytes(content)
        path = folder / one.file
        path.write_bytes(harmed(one, pick))
        began = _cpu_seconds()
        self._counts.current[self._place] = number, time.monotonic_ns()
        kind, told = _outcome(one, path)
        self._counts.current[self._place] = number, 0
        if _cpu_seconds() - began > _SLOW_SECONDS:
            kind = "slow"
        full = _peak() > _MOST_MEMORY
        kind = "memory" if full else kind
        self._counts.add(number, kind)
        if kind not in ("accepted", "clean"):
            save(self._out, one, kind, path, told)
        if full:
            os._exit(_FULL)


def _outcome(one: Format, path: Path) -> tuple[str, str]:
    try:
        one.read(path)
    except PruneError as error:
        return "clean", str(error)
    except BaseException:  # noqa: BLE001  (it is what is looked for)
        return "other", traceback.format_exc()
    return "accepted", ""


def _cpu_seconds() -> float:
    spent = os.times()
    return spent.user + spent.system + spent.children_user + spent.children_system


def _peak() -> int:
    who = (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)
    return 1024 * max(resource.getrusage(one).ru_maxrss for one in who)


def save(out: Path, one: Format, kind: str, path: Path, told: str) -> None:
    """Keep an input that did harm, and what it did."""
    name = "".join(letter if letter.isalnum() else "-" for letter in one.name)
    parent = out / "found" / f"{kind}-{name}"
    parent.mkdir(parents=True, exist_ok=True)
    folder = parent / str(len(list(parent.iterdir())))
    if len(list(parent.iterdir())) < 100:
        folder.mkdir()
        shutil.copy(path, folder)
        (folder / "told.txt").write_text(told)


class _Crew:
    """Starts workers, and again those that end before their time."""

    def __init__(self, counts: _Counts, out: Path, scratch: Path, end: float) -> None:
        self._counts, self._out, self._scratch, self._end = counts, out, scratch, end
        self._pids: dict[int, int] = {}

    def watch(self) -> None:
        try:
            self._watch()
        finally:
            for pid in self._pids.values():
                os.kill(pid, signal.SIGKILL)

    def _watch(self) -> None:
        for place in range(self._counts.workers):
            self._start(place)
        saved = time.monotonic()
        while self._pids:
            time.sleep(0.2)
            for place, pid in list(self._pids.items()):
                self._look_at(place, pid)
            if time.monotonic() - saved > 10:
                saved = time.monotonic()
                keep_counts(self._out, self._counts)

    def _start(self, place: int) -> None:
        scratch = self._scratch / str(place)
        shutil.rmtree(scratch, ignore_errors=True)
        scratch.mkdir()
        seed = random.SystemRandom().getrandbits(64)
        pid = os.fork()
        if pid == 0:
            signal.signal(signal.SIGTERM, signal.SIG_DFL)
            try:
                _Worker(self._counts, place, self._out, scratch).run(seed, self._end)
            finally:
                traceback.print_exc()
                os._exit(1)
        self._pids[place] = pid

    def _look_at(self, place: int, pid: int) -> None:
        number, began = self._counts.current[place].tolist()
        hangs = bool(began) and time.monotonic_ns() - began > _HANGS_SECONDS * 10**9
        if hangs:
            os.kill(pid, signal.SIGKILL)
        ended, status = os.waitpid(pid, 0 if hangs else os.WNOHANG)
        if not ended:
            return
        del self._pids[place]
        code = os.waitstatus_to_exitcode(status)
        if hangs or code < 0:
            one = self._counts.formats[number]
            kind = "slow" if hangs else "crash"
            self._counts.add(number, kind)
            save(self._out, one, kind, self._scratch / f"{place}/{number}/{one.file}", str(code))
        if time.monotonic() < self._end and (hangs or code != 0):
            self._start(place)


def keep_counts(out: Path, counts: _Counts) -> dict[str, dict[str, int]]:
    """Write what came of the inputs of this run, and return it."""
    told = {
        one.name: dict(zip(_KINDS, row.tolist(), strict=True))
        for one, row in zip(counts.formats, counts.table, strict=True)
    }
    (out / f"run-{os.getpid()}.json").write_text(json.dumps(told))
    return told


def total(out: Path) -> str:
    """Return the table over all runs in ``out``, as Markdown."""
    runs = [json.loads(path.read_text()) for path in sorted(out.glob("run-*.json"))]
    names = list(dict.fromkeys(name for run in runs for name in run))
    rows = {
        name: [sum(run.get(name, {}).get(kind, 0) for run in runs) for kind in _KINDS]
        for name in names
    }
    rows["all"] = [sum(row[place] for row in rows.values()) for place in range(len(_KINDS))]
    lines = [
        "| format | inputs | accepted | refused | other | crash | over 10 s | over 1 GiB |",
        "|---|---|---|---|---|---|---|---|",
        *(f"| {name} | {sum(row):,} | " + " | ".join(f"{cell:,}" for cell in row) + " |"
          for name, row in rows.items()),
    ]  # fmt: skip
    return "\n".join(lines)


def main() -> None:
    """Run for the minutes that are asked for, and print the table of all runs."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--minutes", type=float, required=True)
    parser.add_argument("--workers", type=int, default=len(os.sched_getaffinity(0)))
    parser.add_argument("--out", type=Path, default=Path("fuzz"))
    parser.add_argument("--only", default="", help="formats whose names hold this")
    told = parser.parse_args()
    told.out.mkdir(parents=True, exist_ok=True)
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))  # as a run that ends: counts are kept
    shared = Path("/dev/shm")  # noqa: S108  (memory, where there is such a folder)
    with tempfile.TemporaryDirectory(dir=shared if shared.is_dir() else None) as name:
        scratch = Path(name)
        os.environ["PYCAFFE_PRUNE_CACHE"] = str(scratch / "cache")
        formats = [one for one in make_formats(scratch) if told.only in one.name]
        for one in formats:
            _require_honest(one, scratch / "honest")
        counts = _Counts(formats, told.workers)
        began = time.monotonic()
        try:
            _Crew(counts, told.out, scratch, began + 60 * told.minutes).watch()
        finally:
            keep_counts(told.out, counts)
            with (told.out / "minutes.txt").open("a") as file:
                file.write(f"{(time.monotonic() - began) / 60:.1f}\n")
    minutes = sum(map(float, (told.out / "minutes.txt").read_text().split()))
    print(f"{minutes:.1f} minutes with {told.workers} workers\n\n{total(told.out)}")
    bad = counts.table[:, 2:].sum()
    sys.exit(1 if bad else 0)


def _require_honest(one: Format, folder: Path) -> None:
    """The reader must take the file that is harmed afterwards."""
    folder.mkdir()
    for name, content in {**one.beside, one.file: one.content}.items():
        (folder / name).write_bytes(content)
    one.read(folder / one.file)
    shutil.rmtree(folder)


if __name__ == "__main__":
    main()
