"""A process of the real Caffe that does one job after another."""

import json
import os
import subprocess
from collections.abc import Mapping
from pathlib import Path


class CaffeProcess:
    """A Caffe that runs net after net; a failed CHECK ends it, and the next net starts another."""

    def __init__(self, python: Path, script: Path, folder: Path) -> None:
        self._command, self._errors = [python, script], folder / "stderr.txt"
        self._process: subprocess.Popen[str] | None = None

    def run(self, job: Mapping[str, object]) -> None:
        if self._process is None:
            with self._errors.open("w") as errors:
                self._process = subprocess.Popen(
                    self._command,
                    stdin=subprocess.PIPE,
                    stdout=subprocess.PIPE,
                    stderr=errors,
                    text=True,
                    env=os.environ | {"GLOG_minloglevel": "2", "OPENBLAS_NUM_THREADS": "1"},
                )
        assert self._process.stdin
        assert self._process.stdout
        self._process.stdin.write(json.dumps(job) + "\n")
        self._process.stdin.flush()
        if self._process.stdout.readline() != "done\n":
            self.stop()
            raise AssertionError(self._errors.read_text())

    def stop(self) -> None:
        if self._process is not None:
            self._process.communicate()
            self._process = None
