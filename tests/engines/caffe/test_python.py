import ast
import json
import os
import sys
from datetime import UTC, datetime
from pathlib import Path

import pytest

from pycaffe_prune.engines.caffe import python as module
from pycaffe_prune.engines.caffe.prefix import (
    InstalledPrefix,
    default_prefix,
    launcher_of,
    write_launchers,
)
from pycaffe_prune.engines.caffe.python import (
    CONDA_ENVIRONMENT,
    CaffeProbe,
    conda_pythons,
    find_caffe_python,
    probe,
)
from pycaffe_prune.errors import EngineError


@pytest.fixture
def bare(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A machine without any Caffe: no variable, an empty cache, and a PATH of our own."""
    monkeypatch.delenv("CAFFE_PYTHON", raising=False)
    monkeypatch.delenv("CONDA_PREFIX", raising=False)
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    monkeypatch.setenv("PYCAFFE_PRUNE_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("PATH", str(tmp_path / "bin"))
    (tmp_path / "bin").mkdir()
    return tmp_path


def program(path: Path, text: str = "#!/bin/sh\nexit 1\n") -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)
    path.chmod(0o755)
    return path


def python_with(folder: Path, path: Path) -> Path:
    """This Python, with ``folder`` on its module path."""
    return program(path, f'#!/bin/sh\nPYTHONPATH="{folder}" exec "{sys.executable}" "$@"\n')


def conda_environment(folder: Path, modules: Path | None = None) -> Path:
    """An environment as conda leaves it, and its Python, with ``modules`` on its path."""
    (folder / "conda-meta").mkdir(parents=True, exist_ok=True)
    return python_with(modules or folder / "none", folder / "bin/python")


def installed_prefix() -> Path:
    prefix = default_prefix()
    write_launchers(prefix)
    marker = InstalledPrefix(
        release="bullseye",
        packages={"python3-caffe": "1.0.0"},
        installed_at=datetime(2026, 1, 1, tzinfo=UTC),
        bytes_unpacked=2,
        bytes_kept=1,
    )
    (prefix / "caffe-prefix.json").write_text(marker.model_dump_json())
    return launcher_of(prefix)


def fake_pycaffe(folder: Path, init: str) -> Path:
    """A package caffe (and a protobuf) that answers the probe."""
    (folder / "caffe").mkdir(parents=True)
    (folder / "caffe/__init__.py").write_text(init)
    (folder / "caffe/_caffe.cpython-38-x86_64-linux-gnu.so").touch()
    return folder


def test_each_place_gives_way_to_the_one_before(
    bare: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = fake_pycaffe(bare / "modules", "")
    on_path = python_with(folder, bare / "bin/python3")
    found = find_caffe_python()
    assert (found.executable, found.origin) == (on_path, "python3 on PATH")

    environment = conda_environment(bare / "conda/envs" / CONDA_ENVIRONMENT, folder)
    monkeypatch.setenv("CONDA_PREFIX", str(bare / "conda"))
    found = find_caffe_python()
    origin = "conda environment pycaffe-prune-caffe"
    assert (found.executable, found.origin) == (environment, origin)

    launcher = installed_prefix()
    found = find_caffe_python()
    assert (found.executable, found.origin) == (launcher, "private prefix")

    named = program(bare / "named/python")
    monkeypatch.setenv("CAFFE_PYTHON", str(named))
    found = find_caffe_python()
    assert (found.executable, found.origin) == (named, "$CAFFE_PYTHON")

    explicit = program(bare / "explicit/python")
    found = find_caffe_python(explicit)
    assert (found.executable, found.origin) == (explicit, "--caffe-python")


def test_conda_environments_are_found_wherever_conda_keeps_them(tmp_path: Path) -> None:
    conda, elsewhere = tmp_path / "conda", tmp_path / "elsewhere"
    listed = tmp_path / "environments.txt"

    def found(prefix: Path | None) -> list[Path]:
        return conda_pythons("ours", conda_prefix=prefix, listed=listed)

    assert found(None) == found(conda) == []
    its_own = conda_environment(conda / "envs/ours")
    far = conda_environment(elsewhere / "ours")
    conda_environment(elsewhere / "ours-not")
    assert found(None) == []
    assert found(conda) == [its_own]  # the base environment is active
    assert found(conda / "envs/other") == [its_own]  # one beside it is
    assert found(conda / "envs/ours") == [its_own]  # it is active itself
    lines = [
        conda / "envs/ours",
        elsewhere / "ours-not",
        elsewhere / "ours",
        elsewhere / "gone/ours",
    ]
    listed.write_text("".join(f"{line}\n" for line in lines))
    assert found(None) == [its_own, far]
    assert found(conda) == [its_own, far]  # each once


def test_a_folder_of_the_environments_name_is_no_environment(tmp_path: Path) -> None:
    program(tmp_path / "ours/bin/python")
    listed = tmp_path / "environments.txt"
    assert conda_pythons("ours", conda_prefix=tmp_path / "conda", listed=listed) == []


def test_a_conda_environment_without_caffe_does_not_count(bare: Path) -> None:
    environment = bare / "envs" / CONDA_ENVIRONMENT
    program(conda_environment(environment))
    (bare / "home/.conda").mkdir(parents=True)
    (bare / "home/.conda/environments.txt").write_text(f"{environment}\n")
    with pytest.raises(EngineError, match=f"no conda environment {CONDA_ENVIRONMENT}"):
        find_caffe_python()
    python = conda_environment(environment, fake_pycaffe(bare / "modules", ""))
    assert find_caffe_python().executable == python


def test_nothing_anywhere_names_the_remedy(bare: Path) -> None:
    with pytest.raises(EngineError, match=r"caffe-prune doctor --install-caffe"):
        find_caffe_python()


def test_python3_without_the_compiled_module_does_not_count(
    bare: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    sources = bare / "sources"
    folder = fake_pycaffe(sources, "")
    (folder / "caffe/_caffe.cpython-38-x86_64-linux-gnu.so").unlink()
    python_with(folder, bare / "bin/python3")
    monkeypatch.chdir(sources)
    with pytest.raises(EngineError):
        find_caffe_python()


def test_caffe_in_the_current_folder_does_not_count(
    bare: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(fake_pycaffe(bare / "here", ""))
    python_with(bare / "nowhere", bare / "bin/python3")
    with pytest.raises(EngineError):
        find_caffe_python()


def test_half_an_installation_does_not_count(bare: Path) -> None:
    write_launchers(default_prefix())
    with pytest.raises(EngineError):
        find_caffe_python()


def test_a_name_is_looked_up_and_links_are_kept(bare: Path) -> None:
    real = program(bare / "real/python3.8")
    (bare / "bin/python3.8").symlink_to(real)
    assert find_caffe_python(Path("python3.8")).executable == bare / "bin/python3.8"


@pytest.mark.parametrize("name", ["no/such/python", "python-of-nobody"])
def test_a_name_that_is_no_program_is_refused_with_its_origin(
    bare: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    installed_prefix()
    with pytest.raises(EngineError, match=f"--caffe-python: {name} is not a program"):
        find_caffe_python(Path(name))
    monkeypatch.setenv("CAFFE_PYTHON", name)
    with pytest.raises(EngineError, match=rf"\$CAFFE_PYTHON: {name} is not a program"):
        find_caffe_python()


def test_probe_of_a_python_without_caffe_tells_its_last_lines(tmp_path: Path) -> None:
    python = python_with(tmp_path, tmp_path / "python")
    with pytest.raises(EngineError, match=r"No module named 'caffe'.*--install-caffe"):
        probe(python)


def test_probe_of_one_that_dies_tells_why(tmp_path: Path) -> None:
    dying = "import os, sys; print('F1 common.cpp:1] Check failed', file=sys.stderr, flush=True)"
    folder = fake_pycaffe(tmp_path / "modules", f"{dying}; os.abort()")
    with pytest.raises(EngineError, match=r"exit status -6: F1 common.cpp:1\] Check failed"):
        probe(python_with(folder, tmp_path / "python"))


def test_probe_of_a_silent_or_hanging_or_unfit_program(tmp_path: Path) -> None:
    with pytest.raises(EngineError, match="it printed nothing"):
        probe(program(tmp_path / "silent", "#!/bin/sh\nexit 0\n"))
    with pytest.raises(EngineError, match="did not import caffe within"):
        probe(program(tmp_path / "hanging", "#!/bin/sh\nexec sleep 60\n"), timeout=0.2)
    with pytest.raises(EngineError, match="cannot be run"):
        probe(program(tmp_path / "unfit", "no program at all"))
    answer = program(tmp_path / "liar", '#!/bin/sh\necho "caffe-probe: {}"\n')
    with pytest.raises(EngineError, match="not understood"):
        probe(answer)


def test_older_pycaffe_lacks_features_and_may_print(tmp_path: Path) -> None:
    init = "print('hello')\nclass SGDSolver:\n    add_callback = None\n"
    folder = fake_pycaffe(tmp_path / "modules", init)
    found = probe(python_with(folder, tmp_path / "python"))
    assert found.features.model_dump() == {
        "add_callback": True,
        "apply_update": False,
        "lr": False,
        "gpu_pointers": False,
    }
    assert found.caffe_version == "unknown"
    assert found.caffe_path == folder / "caffe"
    assert found.python_version == ".".join(map(str, sys.version_info[:3]))
    assert not found.gpu_build
    assert found.cuda_version is None


def test_pointers_to_the_gpu_are_a_feature(tmp_path: Path) -> None:
    init = "class SGDSolver: pass\nclass _caffe:\n    class Blob:\n        _gpu_diff_ptr = 0\n"
    folder = fake_pycaffe(tmp_path / "modules", init)
    assert probe(python_with(folder, tmp_path / "python")).features.gpu_pointers


def probed(folder: Path, libraries: list[str]) -> CaffeProbe:
    """What is made of a Caffe that maps these libraries."""
    answer = {
        "python_version": "3.8.1",
        "caffe_version": "1.0.0",
        "caffe_path": "/c",
        "numpy_version": "1.19.5",
        "protobuf_version": "3.12",
        "features": {
            "add_callback": True,
            "apply_update": False,
            "lr": False,
            "gpu_pointers": False,
        },
        "libraries": libraries,
    }
    (folder / "answer").write_text(f"caffe-probe: {json.dumps(answer)}\n")
    return probe(program(folder / "python", f'#!/bin/sh\ncat "{folder}/answer"\n'))


@pytest.mark.parametrize(
    ("libraries", "blas", "gpu"),
    [
        (["/l/openblas-pthread/libopenblasp-r0.3.13.so", "/l/libblas.so.3"], "openblas", False),
        (["/l/libblas.so.3.9.0"], "reference", False),
        (["/l/libmkl_rt.so.1", "/x/numpy.libs/libopenblas64.so"], "mkl", False),
        (["/x/numpy.libs/libscipy_openblas64_-1.so", "/l/libsatlas.so.3"], "atlas", False),
        (["/x/scipy.libs/libopenblas.so"], "unknown", False),
        (["/l/libcublas.so.11", "/l/libopenblas.so.0"], "openblas", True),
        (["/l/libcudart.so.11.0"], "unknown", True),
    ],
)
def test_blas_and_gpu_are_told_by_the_libraries(
    tmp_path: Path, libraries: list[str], blas: str, gpu: bool
) -> None:
    found = probed(tmp_path, libraries)
    assert (found.blas, found.gpu_build) == (blas, gpu)


@pytest.mark.parametrize(
    ("libraries", "cuda"),
    [
        (["libcudart.so.11.2.152", "libcublas.so.11.4.1.1043"], "11.2"),
        (["libcudart.so.12.1.105"], "12.1"),
        (["libcudart-d0da41ae.so.11.8.89"], "11.8"),
        (["libcudart.so.10.2"], "10.2"),
        (["libcudart.so.11.0"], "11"),  # the interface's name, the same for all 11.x
        (["libcudart.so.12"], "12"),
        (["libcublas.so.11.4.1.1043", "libcurand.so.10.2.3"], "11"),
        (["libcurand.so.10.2.3"], None),
        (["libopenblas.so.0"], None),
    ],
)
def test_cuda_is_told_as_far_as_the_libraries_tell_it(
    tmp_path: Path, libraries: list[str], cuda: str | None
) -> None:
    assert probed(tmp_path, [f"/l/{name}" for name in libraries]).cuda_version == cuda


@pytest.mark.parametrize("script", [module._FIND, module._PROBE])
def test_what_runs_in_the_other_python_is_python_3_6(script: str) -> None:
    ast.parse(script, feature_version=(3, 6))


@pytest.mark.real_caffe
def test_the_real_caffe_answers(caffe_python: Path) -> None:
    found = probe(caffe_python)
    assert found.caffe_version.startswith("1.0")
    assert found.features.add_callback
    assert (found.caffe_path / "__init__.py").is_file()
    assert found.blas in {"openblas", "atlas", "mkl", "blis", "reference"}
    assert found.gpu_build or (found.cuda_version, found.features.gpu_pointers) == (None, False)


@pytest.mark.real_caffe
def test_the_real_caffe_runs_through_a_link(caffe_python: Path, tmp_path: Path) -> None:
    (tmp_path / "python").symlink_to(os.path.relpath(caffe_python, tmp_path))
    assert probe(tmp_path / "python") == probe(caffe_python)
