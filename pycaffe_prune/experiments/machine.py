"""The machine that a result was measured on."""

import os
import platform
from pathlib import Path

from pycaffe_prune.experiments.result import Machine

__all__ = ["this_machine"]


def this_machine() -> Machine:
    """Describe this machine: processor model, cores usable by this process, operating system."""
    return Machine(cpu=_cpu_model(), cores=len(os.sched_getaffinity(0)), system=_system_name())


def _cpu_model() -> str:
    for line in Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines():
        if line.startswith("model name"):
            return line.partition(":")[2].strip()
    return platform.machine()


def _system_name() -> str:
    try:
        name = platform.freedesktop_os_release()["PRETTY_NAME"]
    except OSError:
        name = platform.system()
    return f"{name}, {platform.machine()}"
