"""Kill parts of sweeps on a Dask cluster at random moments, and compare the results in the end.

    python bench/cluster_kill_trials.py --trials 30 --out kills.json

Each trial is `caffe-prune reproduce` of a small experiment on a scheduler and two workers of its
own, on this machine; every second one keeps its stages in a store. Up to three times, at a random
moment, the command, a worker or the scheduler is killed with SIGKILL. A command that was killed is
given again; a worker is replaced; where the scheduler is gone the command has to end with one
sentence, and is given again with a new cluster. The results have to be those of an undisturbed
sweep, bit for bit; nothing half written may be left, and no process. Files that differ are kept,
beside those of the undisturbed sweep, and of masks it is told in what.
"""

import argparse
import ctypes
import hashlib
import json
import shutil
import subprocess
import sys
import tempfile
import time
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import psutil
from kill_trials import MOST_KILLS, PR_SET_CHILD_SUBREAPER, UNTOLD, Inputs, Trial, checksum_of_json

from pycaffe_prune.formats.caffemodel import read_caffemodel
from pycaffe_prune.formats.files import sha256_of
from pycaffe_prune.formats.mask import read_mask

TOML = """
name = "trial"
preset = "test"
title = "Trial"
solver = "solver.prototxt"
data = "mnist"
layers = ["ip1", "ip2"]
[baseline]
seeds = [1, 2]
iterations = 1000
[connections]
alphas = [1.2]
rounds = 1
iterations = 500
[units]
layer = "ip1"
ratios = [0.5]
iterations = 500
"""
VICTIMS = ("command", "worker", "scheduler")
WORKERS = 2
MOST_SECONDS = 180
"""For what is left of a sweep, on a busy machine."""
PATIENCE = 10
"""Seconds in which the processes of one that was killed have to end."""


class Cluster:
    """A scheduler and workers of one thread each, without nannies, in processes of their own."""

    def __init__(self, folder: Path) -> None:
        self._folder, self._started = folder, 0
        self._scheduler: psutil.Popen | None = None
        self._workers: list[psutil.Popen] = []

    @property
    def file(self) -> Path:
        """What tells where the scheduler is."""
        return self._folder / f"scheduler-{self._started}.json"

    def begin(self) -> None:
        """Start a scheduler and workers; those that there were are ended."""
        self.end()
        self._started += 1
        options = ["--host", "127.0.0.1", "--port", "0", "--no-dashboard", "--no-show"]
        self._scheduler = self._start("scheduler", *options)
        while not self.file.is_file():
            time.sleep(0.05)
        self._workers = [self._start_worker() for _ in range(WORKERS)]

    def end(self) -> None:
        """Kill all of it, and see that the engines end too."""
        for worker in self._workers:
            kill(worker)
        self.kill_scheduler()

    def kill_scheduler(self) -> None:
        """Kill the scheduler, and leave its workers to themselves."""
        if self._scheduler is not None:
            kill(self._scheduler)

    def kill_worker(self, place: int) -> None:
        """Kill a worker, and start another one in its place."""
        kill(self._workers[place])
        self._workers[place] = self._start_worker()

    def _start_worker(self) -> psutil.Popen:
        return self._start("worker", "--host", "127.0.0.1", "--nthreads", "1", "--no-nanny",
                           "--no-dashboard", "--local-directory", str(self._folder))  # fmt: skip

    def _start(self, part: str, *options: str) -> psutil.Popen:
        command = [sys.executable, "-m", f"distributed.cli.dask_{part}", *options]
        with (self._folder / f"{part}.log").open("ab") as log:
            return psutil.Popen(
                [*command, "--scheduler-file", str(self.file)],
                cwd=self._folder, stdin=subprocess.DEVNULL, stdout=log, stderr=log,
            )  # fmt: skip


def kill(process: psutil.Process) -> None:
    """Kill a process; what it started has to end by itself."""
    if not process.is_running():
        return
    started = process.children(recursive=True)
    process.kill()
    process.wait()
    if left := psutil.wait_procs(started, timeout=PATIENCE)[1]:
        raise SystemExit(f"{len(left)} processes outlive {process.pid}")


def results(place: Path, store: bool) -> dict[str, str]:
    """Return a checksum of what each stage found and left, and of the sweep's result, by path.

    A caffemodel has in it where its data lay, and a mask the checksum of that file. With a store
    the data lay with whatever worker did the stage: there the values are compared.
    """
    untold = UNTOLD | {"jobs", *(("files", "weights_sha256") if store else ())}
    found = {}
    for path in sorted(place.rglob("*")):
        name = str(path.relative_to(place))
        if path.name in ("stage.json", "result.json") and path.parent.name != "train":
            found[name] = checksum_of_json(path, untold)
        elif path.suffix in (".caffemodel", ".h5"):
            found[name] = _checksum_of_values(path) if store else sha256_of(path)
    return found


def difference(wanted: Path, found: Path) -> str:
    """Tell how two files that should be the same differ."""
    lacking = [str(path) for path in (wanted, found) if not path.is_file()]
    if lacking:
        return f"lacks {', '.join(lacking)}"
    if wanted.suffix != ".h5":
        return "other bytes"
    one, other = read_mask(wanted), read_mask(found)
    notes = [
        f"{name} {getattr(one, name)} and {getattr(other, name)}"
        for name in ("source_sha256", "criterion", "parameters")
        if getattr(one, name) != getattr(other, name)
    ]
    same = _checksum_of_values(wanted) == _checksum_of_values(found)
    return "; ".join([*notes, "the same masks" if same else "other masks"])


def _checksum_of_values(path: Path) -> str:
    digest = hashlib.sha256()
    is_mask = path.suffix == ".h5"
    arrays = read_mask(path).masks if is_mask else dict(read_caffemodel(path).blobs())
    for place, array in arrays.items():
        digest.update(f"{place} {array.dtype} {array.shape}".encode())
        digest.update(np.ascontiguousarray(array).data)
    return digest.hexdigest()


@dataclass
class Count:
    """What came of the trials with or without a store."""

    store: bool
    seconds: float
    """Of an undisturbed sweep."""
    trials: int = 0
    kills: Counter[str] = field(default_factory=Counter)
    different: list[str] = field(default_factory=list)
    leftovers: list[str] = field(default_factory=list)


class Sweeps:
    """Sweeps one after the other, all in a folder of the same name, on one cluster."""

    def __init__(
        self, cluster: Cluster, inputs: Inputs, place: Path, seed: int, keep: Path
    ) -> None:
        self._cluster, self._inputs, self._place, self._keep = cluster, inputs, place, keep
        self._draw = np.random.default_rng(seed)

    def undisturbed(self, store: bool) -> tuple[Count, dict[str, str]]:
        """Do a sweep that nobody disturbs."""
        seconds = self._begun(store).finish()
        found = results(self._place, store)
        self._place.rename(self._undisturbed(store))
        return Count(store, seconds), found

    def disturb(self, count: Count, wanted: dict[str, str]) -> None:
        """Do a sweep in which something is killed, and compare it with the one that is wanted."""
        trial = self._begun(count.store)
        process = trial.start()
        for _ in range(self._draw.integers(1, MOST_KILLS, endpoint=True)):
            try:
                process.wait(self._draw.uniform(0, count.seconds))
                break  # it was quicker
            except psutil.TimeoutExpired:
                victim = str(self._draw.choice(VICTIMS))
                count.kills[victim] += 1
                process = self._after_killing(victim, process, trial)
        if code := process.wait(MOST_SECONDS):
            raise SystemExit(f"{trial.folder}: ended with {code}: {_said(trial)}")
        count.trials += 1
        count.leftovers += self._left()
        found = results(self._place, count.store)
        names = wanted.keys() | found.keys()
        for name in sorted(one for one in names if wanted.get(one) != found.get(one)):
            count.different.append(name)
            self._keep_both(count, name)
        shutil.rmtree(self._place)

    def _undisturbed(self, store: bool) -> Path:
        return self._place.with_name(f"undisturbed-{'with' if store else 'without'}-store")

    def _keep_both(self, count: Count, name: str) -> None:
        sides = {"wanted": self._undisturbed(count.store) / name, "found": self._place / name}
        folder = self._keep / f"{'with' if count.store else 'without'}-store-{count.trials}"
        for side, path in sides.items():
            if path.is_file():
                (folder / side / name).parent.mkdir(parents=True, exist_ok=True)
                shutil.copy2(path, folder / side / name)
        print(f"{folder}: {name}: {difference(*sides.values())}", file=sys.stderr)

    def _after_killing(self, victim: str, process: psutil.Process, trial: Trial) -> psutil.Process:
        if victim == "worker":
            self._cluster.kill_worker(int(self._draw.integers(WORKERS)))
            return process
        if victim == "command":
            kill(process)
        else:
            self._cluster.kill_scheduler()
            code = process.wait(MOST_SECONDS)  # 0: it was at its report
            if code != 0 and (code != 1 or "scheduler" not in (told := _said(trial))):
                raise SystemExit(f"{trial.folder}: ended with {code}: {told}")
            self._cluster.begin()
        return self._trial(trial.arguments).start()

    def _begun(self, store: bool) -> Trial:
        self._place.mkdir()
        url = ["--store", (self._place / "store").as_uri()] if store else []
        return self._trial([
            *("reproduce", self._inputs.trial__toml, "--data", self._inputs.digits),
            *("--engine", "torch", "--out", str(self._place / "run"), *url),
        ])  # fmt: skip

    def _trial(self, arguments: list[str]) -> Trial:
        told = (
            arguments[: arguments.index("--scheduler")] if "--scheduler" in arguments else arguments
        )
        return Trial(self._place / "told", [*told, "--scheduler", str(self._cluster.file)])

    def _left(self) -> list[str]:
        return [
            str(path.relative_to(self._place))
            for path in self._place.rglob("*")
            if ".partial" in path.name or path.parent.name in ("temporary", "snapshots")
        ]


def _said(trial: Trial) -> str:
    """The end of what a command said on its standard error stream."""
    return (trial.folder / "stderr").read_text(errors="replace")[-2000:]


def main() -> None:
    """Do the trials, print a table, write the counts."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--trials", type=int, default=30, help="in all")
    parser.add_argument("--minutes", type=float, default=60, help="at most")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--out", type=Path, help="write the counts as JSON")
    kept = Path(tempfile.gettempdir()) / "cluster-kill-differences"
    parser.add_argument("--keep", type=Path, default=kept, help="folder for files that differ")
    options = parser.parse_args()
    # Orphans become this process's children: it sees when they end, whatever init does here.
    ctypes.CDLL(None).prctl(PR_SET_CHILD_SUBREAPER, 1)
    with tempfile.TemporaryDirectory(prefix="cluster-kill-trials-") as name:
        place = Path(name)
        inputs = Inputs.make(place)
        (place / "trial.toml").write_text(TOML)
        cluster = Cluster(place)
        try:
            sweeps = Sweeps(cluster, inputs, place / "sweep", options.seed, options.keep)
            found = counts(sweeps, cluster, options.trials, 60 * options.minutes)
        finally:
            cluster.end()
    print("| | undisturbed | trials | commands | workers | schedulers | different | left behind |")
    print("|---|---|---|---|---|---|---|---|")
    for count in found:
        kills = " | ".join(str(count.kills[victim]) for victim in VICTIMS)
        print(
            f"| {'with' if count.store else 'without'} a store | {count.seconds:.1f} s "
            f"| {count.trials} | {kills} | {len(count.different)} | {len(count.leftovers)} |"
        )
    if options.out:
        options.out.write_text(json.dumps([vars(count) for count in found], indent=1) + "\n")
    if any(count.different or count.leftovers for count in found):
        sys.exit(1)


def counts(sweeps: Sweeps, cluster: Cluster, trials: int, seconds: float) -> list[Count]:
    """Do so many trials, without and with a store in turn; fewer when time is up."""
    cluster.begin()
    end = time.monotonic() + seconds
    both = [sweeps.undisturbed(store) for store in (False, True)]
    for number in range(trials):
        if time.monotonic() > end:
            break
        sweeps.disturb(*both[number % 2])
        count = both[number % 2][0]
        print(
            f"{number + 1} {dict(count.kills)} {count.different} {count.leftovers}", file=sys.stderr
        )
    return [count for count, _ in both]


if __name__ == "__main__":
    main()
