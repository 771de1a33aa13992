"""What a process took: seconds by both clocks, the peak of its memory, and what it printed.

Linux counts what a process had resident before ``exec`` into its peak, which is its parent's
memory; so between a bench and what it measures stands a small process, this file run by itself.
"""

import json
import os
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

_SMALL = (sys.executable, "-S", Path(__file__))


@dataclass(frozen=True)
class Measured:
    """One whole process."""

    wall: float
    cpu: float
    peak: int
    """The most bytes it had resident, mapped files included."""
    lines: Sequence[str]


def measure(command: Sequence[str | Path], environment: Mapping[str, str]) -> Measured:
    """Run a command.

    Raises:
        SystemExit: It failed; what it said is on standard error.
    """
    asked = [*_SMALL, *command]
    done = subprocess.run(asked, env=environment, stdout=subprocess.PIPE, text=True, check=False)
    if done.returncode:
        sys.exit(f"{' '.join(map(str, command))}: exit status {done.returncode}")
    *lines, took = done.stdout.splitlines()
    return Measured(**json.loads(took), lines=lines)


def main() -> None:
    """Run the command of the arguments, and print a last line of JSON."""
    start = time.perf_counter()
    process = subprocess.Popen(sys.argv[1:])
    _, status, usage = os.wait4(process.pid, 0)
    wall, process.returncode = time.perf_counter() - start, os.waitstatus_to_exitcode(status)
    cpu, peak = usage.ru_utime + usage.ru_stime, usage.ru_maxrss * 1024
    print(json.dumps({"wall": wall, "cpu": cpu, "peak": peak}), flush=True)
    sys.exit(process.returncode)


if __name__ == "__main__":
    main()
