"""Done means verified; what is damaged is passed over, and what a kill left is removed."""

import os
import shutil
from pathlib import Path

from pycaffe_prune.engines.base import Event
from pycaffe_prune.engines.run import train
from pycaffe_prune.engines.run_folder import RunFolder
from pycaffe_prune.formats.files import sha256_of


def ignore(event: Event) -> None:
    """An observer that looks away."""


class Anew:
    """An observer of what is made anew."""

    def __init__(self) -> None:
        self.told: list[str] = []
        self.resumed: list[int] = []

    def __call__(self, event: Event) -> None:
        if event.event == "anew":
            self.told.append(event.message or "")
        if event.event == "resumed":
            self.resumed.append(event.iteration)


def damage(path: Path) -> None:
    """Change a bit, keep size and times."""
    status, content = path.stat(), bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)
    os.utime(path, ns=(status.st_atime_ns, status.st_mtime_ns))


def truncate(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-7])


def empty(path: Path) -> None:
    path.write_bytes(b"")


def interrupted_at(folder: RunFolder, kept: list[int]) -> None:
    """Make a finished run one that was killed after its snapshots at ``kept``."""
    folder.result.unlink()
    folder.final_weights.unlink()
    for path in folder.snapshots.iterdir():
        if path.is_file() and int(path.stem.rpartition("_")[2]) not in kept:
            path.unlink()


def test_weights_that_are_gone_or_changed_are_made_anew(tmp_path, request_for, torch_engine):
    request, folder = request_for(max_iter=8), RunFolder(tmp_path / "run")
    whole = train(request, folder.path, torch_engine, ignore)
    for harm, told in [
        (Path.unlink, "final.caffemodel is gone"),
        (damage, "final.caffemodel is not as it was written"),
        (truncate, "final.caffemodel is not as it was written"),
    ]:
        harm(folder.final_weights)
        anew = Anew()
        again = train(request, folder.path, torch_engine, anew)
        assert [told in said for said in anew.told] == [True]
        assert again.weights_sha256 == whole.weights_sha256 == sha256_of(folder.final_weights)
        assert again.final_test.correct == whole.final_test.correct
    folder.result.write_bytes(folder.result.read_bytes()[:100])
    anew = Anew()
    again = train(request, folder.path, torch_engine, anew)
    assert again.weights_sha256 == whole.weights_sha256
    assert ["result.json is damaged" in said for said in anew.told] == [True]


def test_content_is_read_again_where_the_status_changed_or_that_is_wished(
    tmp_path, request_for, torch_engine
):
    request, folder = request_for(max_iter=2), RunFolder(tmp_path / "run")
    train(request, folder.path, torch_engine, ignore)
    read: list[Path] = []

    def counted(path: Path) -> str:
        read.append(path)
        return sha256_of(path)

    train(request, folder.path, torch_engine, ignore, counted)
    assert read == [folder.final_weights]


def killed(folder: RunFolder, request_for, engine, tmp_path, kept: list[int]) -> str:
    """Leave what a run killed after several snapshots leaves; return the whole run's checksum."""
    whole = train(
        request_for(max_iter=40, snapshot=10, keep_snapshots=True),
        tmp_path / "whole",
        engine,
        ignore,
    )
    shutil.copytree(tmp_path / "whole", folder.path)
    interrupted_at(folder, kept)
    return whole.weights_sha256


def test_a_damaged_snapshot_is_passed_over_for_the_one_before(tmp_path, request_for, engine):
    folder = RunFolder(tmp_path / "run")
    whole = killed(folder, request_for, engine, tmp_path, [20, 30])
    damage(folder.snapshots / "snapshot_iter_30.caffemodel")
    anew = Anew()
    again = train(request_for(max_iter=40, snapshot=10), folder.path, engine, anew)
    assert [said.split(":")[0] for said in anew.told] == [
        "the snapshot at iteration 30 is passed over, and the run goes on from iteration 20"
    ]
    assert anew.resumed == [20]
    assert again.weights_sha256 == whole


def test_a_run_without_a_whole_snapshot_begins_anew(tmp_path, request_for, torch_engine):
    folder = RunFolder(tmp_path / "run")
    whole = killed(folder, request_for, torch_engine, tmp_path, [20, 30])
    truncate(folder.snapshots / "snapshot_iter_20.solverstate")
    empty(folder.snapshots / "snapshot_iter_30.caffemodel")
    anew = Anew()
    again = train(request_for(max_iter=40, snapshot=10), folder.path, torch_engine, anew)
    assert (len(anew.told), anew.resumed) == (2, [])
    assert "the run goes back to the beginning" in anew.told[1]
    assert again.weights_sha256 == whole


def test_snapshots_without_checksums_count_as_far_as_they_can_be_read(
    tmp_path, request_for, torch_engine
):
    folder = RunFolder(tmp_path / "run")
    whole = killed(folder, request_for, torch_engine, tmp_path, [10, 20, 30])
    for path in folder.snapshots.glob("*.sha256"):
        path.unlink()
    truncate(folder.snapshots / "snapshot_iter_30.caffemodel")
    (folder.snapshots / "snapshot_iter_10.sha256").write_bytes(b"\xff\x00 no checksums")
    anew = Anew()
    again = train(request_for(max_iter=40, snapshot=10), folder.path, torch_engine, anew)
    assert anew.resumed == [20]
    assert again.weights_sha256 == whole


def test_a_run_keeps_two_snapshots_until_it_ends(tmp_path, request_for, torch_engine):
    folder, seen = RunFolder(tmp_path / "run"), []

    def look(event: Event) -> None:
        if event.event == "snapshot":
            seen.append(sorted(path.stem for path in folder.snapshots.glob("*.sha256")))

    train(request_for(max_iter=30, snapshot=10), folder.path, torch_engine, look)
    assert len(max(seen, key=len)) == 2
    names = {path.name for path in folder.snapshots.iterdir() if path.is_file()}
    endings = (".caffemodel", ".sha256", ".solverstate")
    assert names == {f"snapshot_iter_30{ending}" for ending in endings}


STRANGERS = (
    "snapshots/snapshot_iter_.solverstate",
    "snapshots/snapshot_iter_x.solverstate",
    "snapshots/snapshot_iter_²².solverstate",
    "snapshots/readme.txt",
    "notes",
)
LEFTOVERS = (
    ".result.partial-abcdefgh.json",
    "final.partial.caffemodel",
    "snapshots/.snapshot_iter_20.partial-abcdefgh.solverstate",
    "snapshots/snapshot_iter_20.caffemodel",
    "snapshots/snapshot_iter_7.sha256",
    "snapshots/snapshot_iter_20.sha256.partial",
)


def test_strange_files_stop_no_run_and_leftovers_are_removed(tmp_path, request_for, torch_engine):
    folder = RunFolder(tmp_path / "run")
    train(request_for(max_iter=4), folder.path, torch_engine, ignore)
    for name in (*STRANGERS, *LEFTOVERS):
        (folder.path / name).write_bytes(b"?")
    (folder.snapshots / "snapshot_iter_6.solverstate").mkdir()
    anew = Anew()
    assert train(request_for(max_iter=8), folder.path, torch_engine, anew).iterations == 8
    assert (anew.told, anew.resumed) == ([], [4])
    assert all((folder.path / name).exists() for name in STRANGERS)
    assert not any((folder.path / name).exists() for name in LEFTOVERS)
