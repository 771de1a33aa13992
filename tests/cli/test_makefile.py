"""``make reproduce``: which engine it takes, with a caffe-prune that only notes its calls."""

import shutil
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]


@pytest.fixture
def checkout(tmp_path: Path) -> Path:
    """A checkout whose environment is up to date, and whose doctor fails if told so."""
    for name in ("pyproject.toml", "constraints.txt", "Makefile"):
        shutil.copy(ROOT / name, tmp_path)
    (tmp_path / ".venv/bin").mkdir(parents=True)
    command = tmp_path / ".venv/bin/caffe-prune"
    command.write_text(
        '#!/bin/sh\necho "$@" >> calls\n[ "$1" != doctor ] || [ ! -e no-caffe ] || '
        "{ echo 'caffe-prune: apt-get: not found' >&2; exit 1; }\n"
    )
    command.chmod(0o755)
    (tmp_path / ".venv/.installed").touch()
    return tmp_path


def make(checkout: Path, *words: str) -> tuple[subprocess.CompletedProcess[str], list[str]]:
    done = subprocess.run(
        ["make", "reproduce", *words], cwd=checkout, capture_output=True, text=True, check=False
    )
    return done, (checkout / "calls").read_text().splitlines()


RUN = "reproduce lenet-300-100 --preset quick --engine"
INSTALL = "doctor --install-caffe"


def test_the_real_caffe_is_installed_and_left_to_auto(checkout: Path) -> None:
    done, calls = make(checkout)
    assert (done.returncode, calls) == (0, [INSTALL, f"{RUN} auto"])


def test_where_it_cannot_be_had_torch_is_taken_and_said_loudly(checkout: Path) -> None:
    (checkout / "no-caffe").touch()
    done, calls = make(checkout, "REPRODUCE_ARGS=--jobs 1")
    assert (done.returncode, calls) == (0, [INSTALL, f"{RUN} torch --jobs 1"])
    assert "apt-get: not found" in done.stderr
    assert "GOING ON WITH THE ENGINE TORCH" in done.stderr


def test_torch_asks_for_no_caffe(checkout: Path) -> None:
    (checkout / "no-caffe").touch()
    done, calls = make(checkout, "ENGINE=torch", "PRESET=quick")
    assert (done.returncode, calls) == (0, [f"{RUN} torch"])
    assert "CANNOT BE HAD" not in done.stderr


def test_caffe_and_nothing_else(checkout: Path) -> None:
    (checkout / "no-caffe").touch()
    done, calls = make(checkout, "ENGINE=caffe")
    assert done.returncode != 0
    assert calls == [INSTALL]
    (checkout / "no-caffe").unlink()
    done, calls = make(checkout, "ENGINE=caffe")
    assert (done.returncode, calls[1:]) == (0, [INSTALL, f"{RUN} caffe"])
