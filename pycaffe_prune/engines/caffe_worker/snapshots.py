"""A run's snapshots: written whole or not at all, found again."""

import os

SNAPSHOT = "snapshot_iter_%d"
STATE = ".solverstate"


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
    for ending in (".caffemodel", STATE):  # the state last: it is what makes a snapshot complete
        durable_move(os.path.join(".partial", name + ending), name + ending)
    if not keep:
        drop_snapshots(snapshots, iteration)


def drop_snapshots(folder, kept):
    """Remove the snapshots in ``folder`` but that of the iteration ``kept``."""
    for old in snapshots_in(folder):
        if old != kept:
            for ending in (STATE, ".caffemodel"):
                os.unlink(os.path.join(folder, SNAPSHOT % old + ending))


def durable_move(source, target):
    """Rename a file once its content is on the disk."""
    with open(source, "rb+") as file:
        os.fsync(file.fileno())
    os.replace(source, target)
    folder = os.open(os.path.dirname(os.path.abspath(target)), os.O_RDONLY)
    os.fsync(folder)
    os.close(folder)


def snapshots_in(folder):
    """Iterations of the complete snapshots in ``folder``."""
    head, tail = (SNAPSHOT + STATE).split("%d")
    names = set(os.listdir(folder))
    found = [
        int(name[len(head) : -len(tail)])
        for name in names
        if name.startswith(head) and name.endswith(tail)
    ]
    return sorted(n for n in found if SNAPSHOT % n + ".caffemodel" in names)
