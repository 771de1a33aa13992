"""A run's snapshots: written whole or not at all, with their checksums, found again."""

import hashlib
import os
import re

SNAPSHOT = "snapshot_iter_%d"
STATE = ".solverstate"
WEIGHTS = ".caffemodel"
MASKS = ".masks.npz"  # where masks change
SUMS = ".sha256"
_KEPT = 2  # of a run that goes on: one may be damaged
_CHUNK = 1 << 20


def take_snapshot(solver, iteration, keep, masks):
    """Write a snapshot whole or not at all: Caffe writes to .partial, then both files move.

    The solverstate names its caffemodel by the path text that Caffe was given, here the bare file
    name; so snapshots are written and restored with their own folder as working directory.
    """
    snapshots = os.getcwd()
    masks.settle()
    os.chdir(".partial")
    solver.snapshot()
    os.chdir(snapshots)
    name = SNAPSHOT % iteration
    for ending in (WEIGHTS, STATE):
        require_whole(os.path.join(".partial", name + ending))
    masks.save(iteration)
    for ending in (WEIGHTS, STATE):  # the state last: it is what makes a snapshot complete
        durable_move(os.path.join(".partial", name + ending), name + ending)
    write_sums(snapshots, iteration)
    if not keep:
        drop_snapshots(snapshots, iteration)


def write_sums(folder, iteration):
    """Write the checksums of a complete snapshot beside it, as sha256sum writes and checks them."""
    target = os.path.join(folder, SNAPSHOT % iteration + SUMS)
    with open(target + ".partial", "w") as file:
        masks = os.path.join(folder, SNAPSHOT % iteration + MASKS)
        beside = [masks] if os.path.isfile(masks) else []
        for path in snapshot_files(folder, iteration) + beside:
            file.write("%s  %s\n" % (sha256_of(path), os.path.basename(path)))
    durable_move(target + ".partial", target)


def require_whole(path):
    """End the worker if a message that Caffe wrote was cut off: it does not look at its last bytes.

    They leave the stream's buffer when that is closed, and the disk may be full then
    (WriteProtoToBinaryFile, src/caffe/util/io.cpp). Goes from field to field, past their content.
    """
    with open(path, "rb") as file:
        size, at = os.path.getsize(path), 0
        while 0 <= at < size:
            at = _end_of_field(file, at)
    if at != size or not size:
        raise SystemExit("%s could not be written whole: is the disk full?" % path)


def _end_of_field(file, at):
    """Where a field ends that begins at ``at``; -1: within its head the file does."""
    file.seek(at)
    kind = _varint(file) & 7
    value = _varint(file) if kind in (0, 2) else {1: 8, 5: 4}.get(kind, -1)
    if value < 0:
        return -1
    return file.tell() + (0 if kind == 0 else value)


def _varint(file):
    """The number that begins here; -1: there is none."""
    value, shift = 0, 0
    while True:
        byte = file.read(1)
        if not byte:
            return -1
        value |= (byte[0] & 0x7F) << shift
        if byte[0] < 0x80:
            return value
        shift += 7


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
    for ending in (STATE, WEIGHTS, MASKS, SUMS):
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
