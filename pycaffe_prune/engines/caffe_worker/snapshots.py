"""A run's snapshots: written whole or not at all, with their checksums, found again."""

import hashlib
import os
import re

SNAPSHOT = "snapshot_iter_%d"
STATE = ".solverstate"
WEIGHTS = ".caffemodel"
SUMS = ".sha256"
_KEPT = 2  # of a run that goes on: one may be damaged
_CHUNK = 1 << 20


def take_snapshot(solver, iteration, keep):
    """Write a snapshot whole or not at all: Caffe writes to .partial, then both files move.

    The solverstate names its caffemodel by the path text that Caffe was given, here the bare file
    name; so snapshots are written and restored with their own folder as working directory.
    """
    snapshots = os.getcwd()
    os.chdir(".partial")
    solver.snapshot()
    os.chdir(snapshots)
    name = SNAPSHOT % iteration
    for ending in (WEIGHTS, STATE):  # the state last: it is what makes a snapshot complete
        durable_move(os.path.join(".partial", name + ending), name + ending)
    write_sums(snapshots, iteration)
    if not keep:
        drop_snapshots(snapshots, iteration)


def write_sums(folder, iteration):
    """Write the checksums of a complete snapshot beside it, as sha256sum writes and checks them."""
    target = os.path.join(folder, SNAPSHOT % iteration + SUMS)
    with open(target + ".partial", "w") as file:
        for path in snapshot_files(folder, iteration):
            file.write("%s  %s\n" % (sha256_of(path), os.path.basename(path)))
    durable_move(target + ".partial", target)


def sha256_of(path):
    """SHA-256 of a file as hexadecimal digits."""
    digest = hashlib.sha256()
    with open(path, "rb") as file:
        for chunk in iter(lambda: file.read(_CHUNK), b""):
            digest.update(chunk)
    return digest.hexdigest()


def drop_snapshots(folder, newest, kept=_KEPT):
    """Remove the snapshots in ``folder`` but the last ones up to that of the iteration ``newest``.

    Those after it are of a longer run that was given up.
    """
    found = snapshots_in(folder)
    keep = [iteration for iteration in found if iteration <= newest][-kept:]
    for iteration in found:
        if iteration not in keep:
            remove_snapshot(folder, iteration)


def remove_snapshot(folder, iteration):
    """Remove a snapshot; the state first: without it the rest is none."""
    for ending in (STATE, WEIGHTS, SUMS):
        path = os.path.join(folder, SNAPSHOT % iteration + ending)
        if os.path.lexists(path):
            os.unlink(path)


def durable_move(source, target):
    """Rename a file once its content is on the disk."""
    with open(source, "rb+") as file:
        os.fsync(file.fileno())
    os.replace(source, target)
    folder = os.open(os.path.dirname(os.path.abspath(target)), os.O_RDONLY)
    os.fsync(folder)
    os.close(folder)


def snapshots_in(folder):
    """Iterations of the complete snapshots in ``folder``; other files there are passed over."""
    head, tail = (SNAPSHOT + STATE).split("%d")
    pattern = re.compile(re.escape(head) + "([0-9]+)" + re.escape(tail) + "$")
    found = {int(match.group(1)) for match in map(pattern.match, os.listdir(folder)) if match}
    return sorted(n for n in found if all(map(os.path.isfile, snapshot_files(folder, n))))


def snapshot_files(folder, iteration):
    """The two files of a snapshot: weights, and the state that names them."""
    return [os.path.join(folder, SNAPSHOT % iteration + ending) for ending in (WEIGHTS, STATE)]
