"""Which Python has the real Caffe, and what that Caffe can do."""

import json
import os
import re
import shutil
import subprocess
import textwrap
from dataclasses import dataclass
from pathlib import Path

from pydantic import BaseModel, ValidationError

from pycaffe_prune.engines.caffe.prefix import default_prefix, launcher_of, read_marker
from pycaffe_prune.errors import EngineError

__all__ = [
    "CAFFE_PYTHON_VARIABLE",
    "CONDA_ENVIRONMENT",
    "CaffeFeatures",
    "CaffeProbe",
    "CaffePython",
    "conda_pythons",
    "find_caffe_python",
    "probe",
]

CAFFE_PYTHON_VARIABLE = "CAFFE_PYTHON"

# What environment.yml calls itself.
CONDA_ENVIRONMENT = "pycaffe-prune-caffe"

_REMEDY = "`caffe-prune doctor --install-caffe` installs a private one"
_MARK = "caffe-probe: "

# Looks for pycaffe without importing it: fast, and a broken Caffe cannot take the search down.
_FIND = """
import glob, importlib.util, os, sys
sys.path.pop(0)  # the current folder, which may hold a checkout of Caffe's sources
spec = importlib.util.find_spec("caffe")
folders = (spec and spec.submodule_search_locations) or []
sys.exit(not any(glob.glob(os.path.join(folder, "_caffe*.so")) for folder in folders))
"""

# Runs under Python 3.6 to 3.9. A GPU build is told by the CUDA libraries that it brings in: asking
# it (set_device) aborts a CPU-only Caffe.
_PROBE = """
import json, os, platform, sys
sys.path.pop(0)
import caffe, numpy
import google.protobuf
mapped = set()
with open("/proc/self/maps") as maps:
    for line in maps:
        fields = line.rstrip().split(None, 5)
        if len(fields) == 6 and ".so" in os.path.basename(fields[5]):
            mapped.add(fields[5])
solver = caffe.SGDSolver
blob = getattr(getattr(caffe, "_caffe", None), "Blob", None)
print(sys.argv[1] + json.dumps({
    "python_version": platform.python_version(),
    "caffe_version": getattr(caffe, "__version__", "unknown"),
    "caffe_path": os.path.dirname(os.path.abspath(caffe.__file__)),
    "numpy_version": numpy.__version__,
    "protobuf_version": google.protobuf.__version__,
    "libraries": sorted(mapped),
    "features": {
        "add_callback": hasattr(solver, "add_callback"),
        "apply_update": hasattr(solver, "apply_update"),
        "lr": hasattr(solver, "lr"),
        "gpu_pointers": hasattr(blob, "_gpu_diff_ptr"),
    },
}))
"""

_BLAS = {"mkl": "libmkl", "openblas": "libopenblas", "atlas": "atlas", "blis": "libblis"}
_CUDA = ("libcudart", "libcublas", "libcurand")


@dataclass(frozen=True)
class CaffePython:
    """A Python interpreter that should have pycaffe, and where its path came from."""

    executable: Path
    origin: str


class CaffeFeatures(BaseModel):
    """What the solvers and blobs of this pycaffe offer; older ones lack some of it."""

    add_callback: bool
    apply_update: bool
    lr: bool
    gpu_pointers: bool
    """Blobs tell where on the GPU they are, so that masks can work there; no CPU build does."""


class CaffeProbe(BaseModel):
    """What a Caffe says of itself once imported."""

    python_version: str
    caffe_version: str
    caffe_path: Path
    numpy_version: str
    protobuf_version: str
    features: CaffeFeatures
    gpu_build: bool
    cuda_version: str | None
    """The CUDA that it runs with, as ``11.2``, or ``11`` where its libraries tell no more."""
    blas: str


class _ProbeOutput(BaseModel):
    """The line that the probe prints."""

    python_version: str
    caffe_version: str
    caffe_path: Path
    numpy_version: str
    protobuf_version: str
    features: CaffeFeatures
    libraries: list[Path]


def find_caffe_python(explicit: Path | None = None) -> CaffePython:
    """Return the Python interpreter through which Caffe is to be run.

    In this order: ``explicit``, ``$CAFFE_PYTHON``, the private prefix, the conda environment
    ``pycaffe-prune-caffe`` and ``python3`` on PATH, these two only when they have pycaffe. A name
    without a slash is looked up on PATH. Caffe is not imported here (see `probe`).

    Raises:
        EngineError: There is none, or what the user named is no program.
    """
    if explicit is not None:
        return CaffePython(_program(str(explicit), "--caffe-python"), "--caffe-python")
    named = os.environ.get(CAFFE_PYTHON_VARIABLE)
    if named:
        origin = f"${CAFFE_PYTHON_VARIABLE}"
        return CaffePython(_program(named, origin), origin)
    prefix = default_prefix().absolute()
    if read_marker(prefix) is not None and launcher_of(prefix).is_file():
        return CaffePython(launcher_of(prefix), "private prefix")
    environments = conda_pythons(
        CONDA_ENVIRONMENT,
        conda_prefix=Path(os.environ["CONDA_PREFIX"]) if os.environ.get("CONDA_PREFIX") else None,
        listed=Path(os.environ.get("HOME", "/"), ".conda/environments.txt"),
    )
    for python in environments:
        if _has_caffe(python):
            return CaffePython(python, f"conda environment {CONDA_ENVIRONMENT}")
    on_path = shutil.which("python3")
    if on_path is not None and _has_caffe(Path(on_path)):
        return CaffePython(Path(on_path).absolute(), "python3 on PATH")
    raise EngineError(
        f"the real Caffe is not here: no --caffe-python, no ${CAFFE_PYTHON_VARIABLE}, nothing in "
        f"{prefix}, no conda environment {CONDA_ENVIRONMENT} with pycaffe, and python3 on PATH has "
        f"none; {_REMEDY}"
    )


def conda_pythons(name: str, *, conda_prefix: Path | None, listed: Path) -> list[Path]:
    """Return the interpreters of the conda environments of that name; conda itself is not asked.

    Args:
        name: The environment's name, which is that of its folder.
        conda_prefix: The active environment (``$CONDA_PREFIX``), or None: ``name`` may be beside it
            or, if it is conda's own, in its ``envs``.
        listed: Conda's list of all environments of this user, a path a line; it may be missing.
    """
    folders = (
        [] if conda_prefix is None else [conda_prefix.parent / name, conda_prefix / "envs" / name]
    )
    try:
        lines = listed.read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:
        lines = []
    folders += [Path(line.strip()) for line in lines if Path(line.strip()).name == name]
    return [
        folder / "bin/python"
        for folder in dict.fromkeys(folders)
        # Any other folder of that name, a checkout perhaps, has no conda-meta.
        if (folder / "conda-meta").is_dir() and (folder / "bin/python").is_file()
    ]


def probe(python: Path, *, timeout: float = 120.0) -> CaffeProbe:
    """Import Caffe in a child process and return what it is.

    Args:
        python: The interpreter (see `find_caffe_python`).
        timeout: Seconds after which the child is given up.

    Raises:
        EngineError: The interpreter does not run, has no Caffe, or dies of importing it; the
            message has its last lines.
    """
    try:
        done = subprocess.run(
            [str(python), "-c", _PROBE, _MARK],
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            errors="replace",
            check=False,
            timeout=timeout,
            env={**os.environ, "GLOG_minloglevel": "2"},
        )
    except subprocess.TimeoutExpired as error:
        raise EngineError(
            f"{python}: did not import caffe within {timeout:g} seconds; {_REMEDY}"
        ) from error
    except OSError as error:
        raise EngineError(f"{python}: cannot be run: {error.strerror or error}") from error
    lines = [line for line in done.stdout.splitlines() if line.startswith(_MARK)]
    if done.returncode != 0 or not lines:
        reason = "; ".join(done.stderr.strip().splitlines()[-3:]) or "it printed nothing"
        raise EngineError(
            f"{python}: cannot import caffe (exit status {done.returncode}: "
            f"{textwrap.shorten(reason, 600)}); {_REMEDY}"
        )
    try:
        output = _ProbeOutput.model_validate(json.loads(lines[-1].removeprefix(_MARK)))
    except (ValueError, ValidationError) as error:
        raise EngineError(f"{python}: its answer is not understood: {lines[-1]}") from error
    return CaffeProbe(
        **output.model_dump(exclude={"libraries"}),
        gpu_build=_is_gpu_build(output.libraries),
        cuda_version=_cuda_version_of(output.libraries),
        blas=_blas_of(output.libraries),
    )


def _is_gpu_build(libraries: list[Path]) -> bool:
    return any(library.name.startswith(_CUDA) for library in libraries)


def _cuda_version_of(libraries: list[Path]) -> str | None:
    """Read the version off the name of CUDA's runtime library, else off cuBLAS's."""
    names = [library.name for library in libraries]
    for name in names:
        # The whole name is libcudart.so.11.2.152. Some ship it as libcudart.so.11.0, which from
        # CUDA 11 on names the interface of all 11.x.
        found = re.match(r"libcudart\b.*\.so\.(\d+)(?:\.(\d+))?(\.\d+)?", name)
        if found:
            major, minor, patch = found.groups()
            return f"{major}.{minor}" if minor and (patch or int(major) < 11) else str(major)
    for name in names:
        found = re.match(r"libcublas\b.*\.so\.(\d+)", name)
        if found:
            return str(found[1])  # its minor version is one of its own
    return None


def _blas_of(libraries: list[Path]) -> str:
    """Name the BLAS among a process's libraries, except one packed inside NumPy or SciPy."""
    shared = [library for library in libraries if not library.parent.name.endswith(".libs")]
    for name, part in _BLAS.items():
        if any(part in library.name for library in shared):
            return name
    if any(library.name.startswith("libblas") for library in shared):
        return "reference"
    return "unknown"


def _program(name: str, origin: str) -> Path:
    """Return the absolute path of a program given by path or by name (links are kept)."""
    found = shutil.which(str(Path(name).expanduser()))
    if found is None:
        raise EngineError(
            f"{origin}: {name} is not a program that can be run; name a Python interpreter that "
            f"has pycaffe, or leave it out: {_REMEDY}"
        )
    return Path(found).absolute()


def _has_caffe(python: Path) -> bool:
    try:
        done = subprocess.run(
            [str(python), "-c", _FIND], capture_output=True, check=False, timeout=60
        )
    except (OSError, subprocess.TimeoutExpired):
        return False
    return done.returncode == 0
