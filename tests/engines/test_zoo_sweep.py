"""The sweep of `bench/zoo_sweep.py`: over small nets, and over what goes wrong in a child."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from types import ModuleType

import pytest

from pycaffe_prune.errors import FormatError

BENCH = Path(__file__).parents[2] / "bench"

NET = """
layer {
  name: "data" type: "Input" top: "data"
  input_param { shape { dim: 1 dim: 3 dim: 6 dim: 6 } }
}
layer {
  name: "c1" type: "Convolution" bottom: "data" top: "c1"
  convolution_param { num_output: 6 kernel_size: 3 }
}
layer { name: "relu" type: "ReLU" bottom: "c1" top: "c1" }
layer {
  name: "ip" type: "InnerProduct" bottom: "c1" top: "ip" inner_product_param { num_output: 4 }
}
layer { name: "prob" type: "Softmax" bottom: "ip" top: "prob" }
"""


def test_each_command_is_tried_on_each_file_and_nothing_twice(tmp_path: Path) -> None:
    zoo, stored = tmp_path / "zoo", tmp_path / "outcomes.json"
    zoo.mkdir()
    (zoo / "net.prototxt").write_text(NET)
    (zoo / "broken.prototxt").write_text("layer {")
    (zoo / "solver.prototxt").write_text('net: "net.prototxt" base_lr: 0.1')
    (zoo / "empty.caffemodel").touch()
    command = [sys.executable, BENCH / "zoo_sweep.py", zoo, "--json", stored]
    first = subprocess.run(command, check=True, capture_output=True, text=True)
    files = {
        Path(name).name: {one["step"]: one["outcome"] for one in row}
        for name, row in json.loads(stored.read_text())["files"].items()
    }
    assert set(files) == {"net.prototxt", "broken.prototxt", "empty.caffemodel"}
    assert set(files["net.prototxt"].values()) == {"ok"}
    assert set(files["broken.prototxt"].values()) == {"refused", "left out"}
    assert set(files["empty.caffemodel"].values()) == {"refused"}
    assert sorted(zoo.iterdir()) == [
        zoo / name
        for name in ("broken.prototxt", "empty.caffemodel", "net.prototxt", "solver.prototxt")
    ]
    again = subprocess.run(command, check=True, capture_output=True, text=True)
    assert again.stdout == first.stdout
    assert again.stderr == ""


@pytest.fixture
def bench(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    monkeypatch.syspath_prepend(str(BENCH))
    import zoo_sweep

    return zoo_sweep


def refuse(_case: object) -> None:
    raise FormatError("a sentence")


def fail(_case: object) -> None:
    {}["no such key"]


def hang(case: "Path") -> None:
    child = subprocess.Popen(["sleep", "60"])
    case.write_text(str(child.pid))
    time.sleep(60)


def die(_case: object) -> None:
    os.kill(os.getpid(), signal.SIGSEGV)


def swell(_case: object) -> None:
    bytearray(1 << 40)


@pytest.mark.parametrize(
    ("step", "outcome", "sentence"),
    [
        (refuse, "refused", "a sentence"),
        (fail, "traceback", "KeyError: 'no such key' (test_zoo_sweep.py:"),
        (hang, "timeout", "more than 2 s"),
        (die, "killed", "ended by SIGSEGV"),
        (swell, "killed", "out of memory"),
    ],
)
def test_how_a_step_ends_is_told(
    bench: ModuleType, tmp_path: Path, step: object, outcome: str, sentence: str
) -> None:
    limits = bench.Limits(2.0 if step is hang else 60.0, 8 << 30)
    found = bench.limited("step", step, tmp_path / "child", limits)
    assert (found.outcome, found.sentence[: len(sentence)]) == (outcome, sentence)
    if step is hang:  # what the step has started ends with it
        pid = int((tmp_path / "child").read_text())
        status = Path(f"/proc/{pid}/stat")
        assert not status.exists() or status.read_text().split()[2] == "Z"
