"""``caffe-prune python``: what runs, in which environment, and what the run sees."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from pycaffe_prune.cli import python as command
from pycaffe_prune.errors import PruneError


class _Executed(Exception):  # noqa: N818 (no error: the end of this process)
    """What would have taken this process's place."""


@pytest.fixture(autouse=True)
def _no_exec(monkeypatch: pytest.MonkeyPatch) -> None:
    def execve(program: str, arguments: list[str], environment: dict[str, str]) -> None:
        raise _Executed(program, arguments, environment)

    monkeypatch.setattr(os, "execve", execve)


def invoke(*arguments: str) -> Result:
    return CliRunner().invoke(command.python, arguments)


def executed(*arguments: str) -> tuple[str, list[str], dict[str, str]]:
    error = invoke(*arguments).exception
    assert isinstance(error, _Executed), error
    program, told, environment = error.args
    assert told[0] == program
    return program, told[1:], environment


@pytest.mark.parametrize(
    "arguments",
    [
        [],
        ["-"],
        ["script.py"],
        ["script.py", "--engine", "caffe", "-m", "--help"],
        ["-m", "module", "--install", "-c"],
        ["-c", "print(1)", "-m", "--", "x"],
    ],
)
def test_what_comes_after_the_script_is_the_scripts(arguments: list[str]) -> None:
    program, told, _ = executed(*arguments)
    assert program == sys.executable
    assert told == arguments


@pytest.mark.parametrize("path", [None, "/mine", f"/a{os.pathsep}{os.pathsep}/b"])
def test_the_path_of_the_user_stays(monkeypatch: pytest.MonkeyPatch, path: str | None) -> None:
    monkeypatch.delenv("PYTHONPATH", raising=False)
    if path is not None:
        monkeypatch.setenv("PYTHONPATH", path)
    startup = str(command.STARTUP)
    inside = executed("script.py")[2]["PYTHONPATH"]
    assert inside == (startup if path is None else os.pathsep.join([startup, path]))

    monkeypatch.setenv("PYTHONPATH", inside)  # one in another
    assert executed("script.py")[2]["PYTHONPATH"] == inside
    _, _, environment = executed("--engine", "caffe", "--caffe-python", sys.executable, "script.py")
    assert environment.get("PYTHONPATH") == path


@pytest.mark.real_caffe
def test_the_real_caffe_has_its_own_python(caffe_python: Path) -> None:
    program, told, _ = executed("--engine", "caffe", "script.py", "1")
    assert program == str(caffe_python)
    assert told == ["script.py", "1"]


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (["-m"], "-m needs something to run"),
        (["-c"], "-c needs something to run"),
        (["-m", "-c", "x"], "either -m or -c"),
        (["--caffe-python", "python3", "x.py"], "goes with --engine caffe"),
        (["--install", "x.py"], "go with nothing but --dry-run"),
        (["--install", "--engine", "caffe"], "go with nothing but --dry-run"),
        (["--install", "--uninstall"], "either --install or --uninstall"),
        (["--dry-run"], "either --install or --uninstall"),
    ],
)
def test_a_command_line_at_fault_is_told(arguments: list[str], sentence: str) -> None:
    done = invoke(*arguments)
    assert done.exit_code == 2
    assert sentence in done.output


def run_python(folder: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    """What `os.execve` would have started."""
    program, told, environment = executed(*arguments)
    return subprocess.run(
        [program, *told],
        cwd=folder,
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )


def test_a_script_runs_as_python_runs_it(tmp_path: Path) -> None:
    """Also beside a folder ``caffe``, with its own sitecustomize, and in processes of its own."""
    (tmp_path / "caffe").mkdir()
    (tmp_path / "caffe" / "__init__.py").write_text("raise ImportError('of another Python')")
    own = tmp_path / "own"
    own.mkdir()
    (own / "sitecustomize.py").write_text("import builtins; builtins.of_the_user = True")
    (tmp_path / "script.py").write_text(
        "import sys, subprocess\n"
        "print(sys.argv, sys.path[0], __name__, __file__, of_the_user)\n"
        "print(sorted({'torch', 'numpy', 'pycaffe_prune.pycaffe'} & set(sys.modules)))\n"
        "print([folder for folder in sys.path if folder.endswith('startup')])\n"
        "code = 'import caffe.proto.caffe_pb2 as p; print(p.__name__)'\n"
        "sys.stdout.flush()\n"
        "subprocess.run([sys.executable, '-c', code])\n"
        "def fail():\n"
        "    raise KeyError('mine')\n"
        "fail()\n"
    )
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PYTHONPATH", str(own))
        done = run_python(tmp_path, "script.py", "a", "-b")
    assert done.stdout.splitlines() == [
        f"['script.py', 'a', '-b'] {tmp_path} __main__ {tmp_path / 'script.py'} True",
        "[]",
        "[]",
        "pycaffe_prune.pycaffe.proto.caffe_pb2",
    ]
    assert done.returncode == 1
    assert [line for line in done.stderr.splitlines() if line.startswith("  File")] == [
        f'  File "{tmp_path / "script.py"}", line 10, in <module>',
        f'  File "{tmp_path / "script.py"}", line 9, in fail',
    ]
    assert done.stderr.endswith("KeyError: 'mine'\n")


def test_the_environment_gets_a_module_and_loses_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "caffe.py"
    monkeypatch.setattr(command, "shim_path", lambda: path)
    for options, is_there, said in [
        (["--install", "--dry-run"], False, "would be written"),
        (["--install"], True, "written"),
        (["--install"], True, "is there already"),
        (["--uninstall", "--dry-run"], True, "would be removed"),
        (["--uninstall"], False, "removed"),
        (["--uninstall"], False, "is not there"),
    ]:
        done = invoke(*options)
        assert done.exit_code == 0, done.output
        assert done.output == f"{path}: {said}\n"
        assert path.exists() == is_there
        assert not [other for other in tmp_path.iterdir() if other != path]


def test_another_caffe_of_the_environment_stays(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "caffe.py"
    monkeypatch.setattr(command, "shim_path", lambda: path)
    path.write_text("mine = 1\n")
    for options in (["--install"], ["--uninstall"], ["--uninstall", "--dry-run"]):
        error = invoke(*options).exception
        assert isinstance(error, PruneError)
        assert str(path) in str(error)
        assert path.read_text() == "mine = 1\n"
