"""A module ``caffe`` of an environment that is ours, and never hides another one."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from pycaffe_prune.caffe_name.shim import install_shim, shim_path, uninstall_shim
from pycaffe_prune.errors import PruneError


def test_the_module_gives_ours(tmp_path: Path) -> None:
    assert install_shim(tmp_path / "caffe.py", search=[])
    code = (
        "from caffe.proto import caffe_pb2; import caffe; print(caffe.__name__, caffe_pb2.__name__)"
    )
    done = subprocess.run(
        [sys.executable, "-c", code],
        env=os.environ | {"PYTHONPATH": str(tmp_path)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.stdout.split() == [
        "pycaffe_prune.pycaffe",
        "pycaffe_prune.pycaffe.proto.caffe_pb2",
    ], done.stderr


@pytest.mark.parametrize("form", ["caffe.py", "caffe/__init__.py"])
def test_another_caffe_anywhere_on_the_path_is_not_hidden(tmp_path: Path, form: str) -> None:
    other, path = tmp_path / "other" / form, tmp_path / "caffe.py"
    other.parent.mkdir(parents=True)
    other.touch()
    for dry_run in (True, False):
        with pytest.raises(PruneError, match="is not hidden"):
            install_shim(path, search=[str(tmp_path / "other")], dry_run=dry_run)
    assert not path.exists()
    assert not uninstall_shim(path)


def test_a_folder_of_that_name_is_no_module(tmp_path: Path) -> None:
    (tmp_path / "models" / "caffe").mkdir(parents=True)
    assert install_shim(tmp_path / "caffe.py", search=[str(tmp_path / "models")])


def test_a_place_that_cannot_be_written_to_is_told(tmp_path: Path) -> None:
    with pytest.raises(PruneError, match="cannot be written: No such file"):
        install_shim(tmp_path / "nothing" / "caffe.py", search=[])


def test_it_belongs_into_the_environment() -> None:
    assert str(shim_path().parent) in sys.path
