"""Building the LMDBs of MNIST and of Oxford 102 flowers, side by side with Caffe's own tools.

Ours is `caffe-prune data`: both LMDBs, the mean image, checksums and the manifest. Against it,
`convert_mnist_data` or `convert_imageset` for both splits and `compute_image_mean`. Whole
processes, start and imports included, turn by turn, the source in the page cache; all make their
files durable (fsync). MNIST's files are unpacked for both; of the flowers ours reads the tar, the
tool files that were unpacked before. Once on one core, once on two. The tools come with Debian's
package caffe: where the prefix in use lacks them, one that has them is installed in the bench's
folder. Run with:
.venv/bin/python bench/data_sets.py [--source DIR] [--folder DIR] [--repeats N] [mnist] [flowers102]
"""

import argparse
import gzip
import os
import resource
import shutil
import statistics
import subprocess
import sys
import tarfile
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

from data_prep.flowers102_lists import LABELS_FILE, SPLIT_FILE, image_lists, read_parts
from data_prep.lmdb_writer import lmdb_content_checksum
from data_prep.manifest import load_manifest
from pycaffe_prune.engines.caffe.prefix import install_caffe
from pycaffe_prune.engines.caffe.python import find_caffe_python
from pycaffe_prune.errors import EngineError

ONE_CORE_TARGET = 1.0
TWO_CORES_TARGET = 1.7

Command = list[str | Path]


@dataclass(frozen=True)
class Run:
    """One or several whole processes, one after the other."""

    seconds: float
    cpu_seconds: float
    """Of all cores together: what remains comparable on a busy machine."""


@dataclass(frozen=True)
class Contest:
    """What is built, and the commands of either side.

    Attributes:
        name: The data set, as `caffe-prune data` knows it.
        ours: Our command; its data set goes to the folder ``out``.
        theirs: The tools' commands; their LMDBs are those of ``lmdbs``.
        out: Our folder.
        lmdbs: Their LMDB of each split.
        mean: Their mean image.
    """

    name: str
    ours: Command
    theirs: list[Command]
    out: Path
    lmdbs: dict[str, Path]
    mean: Path


def caffe_tool(folder: Path) -> Path:
    """Return the program that starts Caffe's tools, of the user's Caffe or a prefix of our own."""
    try:
        python = find_caffe_python().executable
        if (python.parents[1] / "usr/bin/convert_imageset").is_file():
            return python.with_name("caffe-tool")
    except EngineError:
        pass  # then one is installed
    prefix = folder / "caffe-with-tools"
    print(f"installing Caffe's tools in {prefix}")
    python = install_caffe(prefix, mirror=None, on_progress=quiet, extra_packages=["caffe"])
    return python.with_name("caffe-tool")


def quiet(step: str, done: float | None) -> None:
    """Show no progress."""


def mnist(source: Path, folder: Path, tool: Path) -> Contest:
    """Prepare MNIST: the tool wants its four files unpacked."""
    files = folder / "mnist-files"
    files.mkdir(exist_ok=True)
    for path in source.glob("*-ubyte.gz"):
        (files / path.stem).write_bytes(gzip.decompress(path.read_bytes()))
    lmdbs = {split: folder / f"their-mnist-{split}" for split in ("train", "test")}
    mean = folder / "their-mnist-mean.binaryproto"
    theirs: list[Command] = [
        [
            *(tool, "convert_mnist_data", "--backend=lmdb"),
            *(files / f"{stem}-images-idx3-ubyte", files / f"{stem}-labels-idx1-ubyte"),
            lmdbs[split],
        ]
        for split, stem in (("train", "train"), ("test", "t10k"))
    ]
    theirs.append([tool, "compute_image_mean", "--backend=lmdb", lmdbs["train"], mean])
    return Contest("mnist", build("mnist", files, folder), theirs, out(folder), lmdbs, mean)


def flowers102(source: Path, folder: Path, tool: Path) -> Contest:
    """Prepare the flowers: the tool wants the tar unpacked, and image lists."""
    archive = source / "jpg-256.tar"
    files = folder / "flowers102-files"
    if not files.is_dir():
        with tarfile.open(archive) as tar:
            tar.extractall(files, filter="data")
    lmdbs, theirs = {}, list[Command]()
    parts = read_parts(source / LABELS_FILE, source / SPLIT_FILE)
    for split, images in image_lists(parts).items():
        lines = folder / f"flowers102-{split}.txt"
        lines.write_text("".join(f"{image.name} {image.label}\n" for image in images))
        lmdbs[split] = folder / f"their-flowers102-{split}"
        flags = ["--resize_height=256", "--resize_width=256"]
        theirs.append([tool, "convert_imageset", *flags, f"{files}/", lines, lmdbs[split]])
    mean = folder / "their-flowers102-mean.binaryproto"
    theirs.append([tool, "compute_image_mean", lmdbs["train"], mean])
    ours = build("flowers102", archive, folder)
    return Contest("flowers102", ours, theirs, out(folder), lmdbs, mean)


def out(folder: Path) -> Path:
    """Return the folder of the data set that we build."""
    return folder / "ours"


def build(name: str, source: Path, folder: Path) -> Command:
    """Return our command."""
    return [
        *(sys.executable, "-m", "pycaffe_prune", "data", name),
        *("--out", out(folder), "--source", source),
    ]


def measure(commands: list[Command], cores: int) -> Run:
    """Run commands on the first ``cores`` cores, output hidden."""
    environment = {**os.environ, "GLOG_minloglevel": "2"}
    pinned = ["taskset", "--cpu-list", f"0-{cores - 1}"]
    start, cpu = time.perf_counter(), children_cpu()
    for command in commands:
        done = subprocess.run(
            [*pinned, *command], env=environment, capture_output=True, text=True, check=False
        )
        if done.returncode:
            sys.exit(f"{command[0]}: exit status {done.returncode}\n{done.stderr}")
    return Run(time.perf_counter() - start, children_cpu() - cpu)


def children_cpu() -> float:
    """Return the seconds of CPU that all finished child processes have taken."""
    usage = resource.getrusage(resource.RUSAGE_CHILDREN)
    return usage.ru_utime + usage.ru_stime


def clear(contest: Contest) -> None:
    """Remove what both sides made."""
    for folder in (contest.out, *contest.lmdbs.values()):
        shutil.rmtree(folder, ignore_errors=True)


def same(contest: Contest) -> bool:
    """Tell whether both sides made the same records and the same mean image."""
    manifest = load_manifest(contest.out)
    return contest.mean.read_bytes() == (contest.out / manifest.mean).read_bytes() and all(
        lmdb_content_checksum(contest.lmdbs[name]) == split.sha256
        for name, split in manifest.splits.items()
    )


def summary(name: str, runs: list[Run]) -> float:
    """Print the medians over the repetitions, and return that of the time."""
    seconds = [run.seconds for run in runs]
    cpu = statistics.median(run.cpu_seconds for run in runs)
    middle = statistics.median(seconds)
    print(
        f"  {name:22} {middle:6.2f} s ({min(seconds):.2f} to {max(seconds):.2f}), "
        f"{cpu:.2f} s of CPU"
    )
    return middle


def race(contest: Contest, repeats: int) -> bool:
    """Race both sides, print the medians, and tell whether ours meets its targets."""
    sides = {
        "Caffe's tools": (contest.theirs, 1),
        "ours on one core": ([contest.ours], 1),
        "ours on two cores": ([contest.ours], 2),
    }
    runs: dict[str, list[Run]] = {name: [] for name in sides}
    equal = True
    for _ in range(repeats):
        clear(contest)
        for name, (commands, cores) in sides.items():
            shutil.rmtree(contest.out, ignore_errors=True)
            os.sync()  # what the last one left to be written is not this one's to wait for
            runs[name].append(measure(commands, cores))
        equal = equal and same(contest)
    clear(contest)
    print(f"{contest.name}: medians of {repeats}; the same records and mean: {equal}")
    theirs, one, two = (summary(name, runs[name]) for name in sides)
    print(f"  Caffe's tools / ours on one core  {theirs / one:.2f} (target: {ONE_CORE_TARGET:g})")
    print(f"  Caffe's tools / ours on two cores {theirs / two:.2f} (target: {TWO_CORES_TARGET:g})")
    print(f"  ours on one core / on two         {one / two:.2f}")
    return equal and theirs / one >= ONE_CORE_TARGET and theirs / two >= TWO_CORES_TARGET


def main() -> None:
    """Race what was asked for."""
    parser = argparse.ArgumentParser(description=__doc__)
    prepare = {"mnist": mnist, "flowers102": flowers102}
    # `choices` would refuse an empty list (Python 3.11).
    parser.add_argument("sets", nargs="*", metavar="SET", help=f"of {', '.join(prepare)}; all")
    data = os.environ.get("PYCAFFE_PRUNE_DATA")
    parser.add_argument("--source", type=Path, default=data, help="folder of both sets' folders")
    default = Path(tempfile.gettempdir()) / "pycaffe-prune-bench"
    parser.add_argument("--folder", type=Path, default=default, help="needs 4 GiB")
    parser.add_argument("--repeats", type=int, default=3)
    options = parser.parse_args()
    if options.source is None:
        sys.exit("not run: PYCAFFE_PRUNE_DATA is not set; it names the folder of both data sets")
    folder = options.folder / "lmdb"
    folder.mkdir(parents=True, exist_ok=True)
    tool = caffe_tool(folder)
    met = [
        race(prepare[name](options.source / name, folder, tool), options.repeats)
        for name in options.sets or prepare
    ]
    sys.exit(not all(met))


if __name__ == "__main__":
    main()
