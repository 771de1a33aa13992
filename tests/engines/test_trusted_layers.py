"""Trusted runs: what they may run and write, where, and what says so."""

import json
from dataclasses import replace
from pathlib import Path

import h5py
import pytest

from pycaffe_prune.engines.base import Engine
from pycaffe_prune.engines.job import TrainRequest
from pycaffe_prune.engines.prepare import prepare
from pycaffe_prune.engines.run import train
from pycaffe_prune.engines.run_folder import RunFolder
from pycaffe_prune.engines.trusted_layers import (
    OUTPUT_FOLDER,
    anchored_output,
    confine_output,
    make_output_folders,
)
from pycaffe_prune.errors import EngineError, FormatError
from pycaffe_prune.formats.caffe_pb2 import NetParameter
from pycaffe_prune.formats.prototxt import read_net

HOSTILE = Path(__file__).parents[1] / "cases" / "hostile"

NET = """
layer { name: "d" type: "DummyData" top: "data" top: "label"
  dummy_data_param { shape { dim: 2 dim: 3 } shape { dim: 2 dim: 1 } } }
layer { name: "p" type: "Python" top: "q" python_param { module: "evil_module" layer: "L" } }
layer { name: "quiet" type: "Silence" bottom: "q" }
layer { name: "seen" type: "HDF5Output" bottom: "data" bottom: "label"
  hdf5_output_param { file_name: "sub/seen.h5" } }
layer { name: "ip" type: "InnerProduct" bottom: "data" top: "ip"
  inner_product_param { num_output: 1 } }
layer { name: "loss" type: "EuclideanLoss" bottom: "ip" bottom: "label" top: "loss" }
"""


@pytest.fixture
def ask(tmp_path: Path) -> TrainRequest:
    (tmp_path / "net.prototxt").write_text(NET)
    solver = tmp_path / "solver.prototxt"
    solver.write_text('net: "net.prototxt" base_lr: 0.1 lr_policy: "fixed" max_iter: 1')
    return TrainRequest(solver=solver, trust=True)


def writing(name: str) -> NetParameter:
    net = NetParameter()
    net.layer.add(name="w", type="HDF5Output").hdf5_output_param.file_name = name
    return net


@pytest.mark.parametrize("name", ["/etc/passwd", "../x.h5", "a/../../x.h5", "..", "", "."])
def test_files_of_layers_that_lead_elsewhere_are_refused(name: str) -> None:
    with pytest.raises(FormatError, match=r"net: layer 'w' \(HDF5Output\) writes the file"):
        confine_output(writing(name), Path("net"))


def test_a_link_does_not_lead_out_of_the_run_s_folder(tmp_path: Path) -> None:
    net = writing("sub/x.h5")
    confine_output(net, Path("net"))
    (tmp_path / "run" / OUTPUT_FOLDER).mkdir(parents=True)
    make_output_folders(net, tmp_path / "run")
    assert (tmp_path / "run" / OUTPUT_FOLDER / "sub").is_dir()
    (tmp_path / "run" / OUTPUT_FOLDER / "sub" / "x.h5").symlink_to(tmp_path / "victim")
    with pytest.raises(FormatError, match="out of the run's folder"):
        make_output_folders(net, tmp_path / "run")


@pytest.mark.parametrize("solver", sorted(HOSTILE.glob("*/solver*.prototxt")), ids=str)
def test_hostile_solvers_leave_nothing_behind(solver: Path, digits: Path, tmp_path: Path) -> None:
    run = RunFolder(tmp_path / "run")
    with pytest.raises(FormatError, match="--trust"):
        prepare(TrainRequest(solver=solver, data=digits), run)
    assert not run.path.exists()


def test_of_one_s_own_files_too_what_would_be_written_elsewhere_is_refused(
    digits: Path, tmp_path: Path
) -> None:
    solver = HOSTILE / "hdf5output" / "solver.prototxt"
    with pytest.raises(FormatError, match=r"'steal' .*'ELSEWHERE/victim.txt'; --trust"):
        prepare(TrainRequest(solver=solver, data=digits), RunFolder(tmp_path))
    net = tmp_path / "net.prototxt"
    text = (solver.parent / "net.prototxt").read_text()
    net.write_text(text.replace("ELSEWHERE", str(tmp_path)))
    with pytest.raises(FormatError, match=r"'steal' .*writes the file '/.*/victim.txt'; layers wr"):
        prepare(TrainRequest(solver=solver, net=net, data=digits, trust=True), RunFolder(tmp_path))


@pytest.mark.real_caffe
def test_a_trusted_run_runs_code_writes_below_its_folder_and_says_so(
    ask: TrainRequest, tmp_path: Path, caffe_engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    pwned, run = tmp_path / "PWNED", RunFolder(tmp_path / "run")
    monkeypatch.setenv("PWNED", str(pwned))
    monkeypatch.setenv("PYTHONPATH", str(HOSTILE / "python-layer-bypass"))  # or beside the net
    with pytest.raises(FormatError, match="'p' is a Python layer that runs the module 'evil_mod"):
        train(replace(ask, trust=False), run.path, caffe_engine, lambda _: None)
    assert not pwned.exists()
    before = set(tmp_path.iterdir())
    result = train(ask, run.path, caffe_engine, lambda _: None)
    assert pwned.exists()
    assert set(tmp_path.iterdir()) - before == {pwned}
    with h5py.File(run.path / OUTPUT_FOLDER / "sub" / "seen.h5") as file:
        assert file["data"].shape == (2, 3, 1, 1)
    assert result.trusted
    assert json.loads(run.result.read_text())["trusted"]
    said = json.loads(run.log.read_text().splitlines()[0])["message"]
    assert "'p' is a Python layer that runs the module 'evil_module'" in said
    assert f"'{OUTPUT_FOLDER}/sub/seen.h5'" in said
    again = read_net(run.net)
    assert again.layer[3].hdf5_output_param.file_name == f"{OUTPUT_FOLDER}/sub/seen.h5"


@pytest.mark.real_caffe
def test_a_trusted_run_writes_the_same_file_with_either_engine_and_one_batch_only(
    ask: TrainRequest, tmp_path: Path, engine: Engine
) -> None:
    layers = [line for line in NET.splitlines() if '"p"' not in line and '"quiet"' not in line]
    values = "data_filler { value: 0.5 } data_filler { value: 2 }"
    text = "\n".join(layers).replace("dim: 2 dim: 1 }", f"dim: 2 dim: 1 }} {values}")
    (tmp_path / "net.prototxt").write_text(text.replace('"label"\n', '"label" phase: TRAIN\n'))
    run = RunFolder(tmp_path / "run")
    assert train(ask, run.path, engine, lambda _: None).trusted
    with h5py.File(run.path / OUTPUT_FOLDER / "sub" / "seen.h5") as file:
        assert {name: found.dtype.str for name, found in file.items()} == dict.fromkeys(
            ("data", "label"), "<f4"
        )
        assert file["data"][...].tolist() == [[[[0.5]]] * 3] * 2
        assert file["label"][...].tolist() == [[[[2]]]] * 2
    with pytest.raises(EngineError, match=r"one|dataset"):
        train(replace(ask, max_iter=2), tmp_path / "again", engine, lambda _: None)


def test_layers_write_below_the_run_s_folder_wherever_it_is_run(tmp_path: Path) -> None:
    net = writing("sub/x.h5")
    confine_output(net, Path("net"))
    (layer,) = anchored_output(net, tmp_path).layer
    assert layer.hdf5_output_param.file_name == str(tmp_path / OUTPUT_FOLDER / "sub" / "x.h5")
    for name in ("../x.h5", "/x.h5"):
        with pytest.raises(FormatError, match="out of the run's folder"):
            anchored_output(writing(name), tmp_path)


def test_a_run_goes_on_as_it_began_trusted_or_not(make_solver, digits, tmp_path: Path) -> None:
    plain = TrainRequest(solver=make_solver(), data=digits, seed=3)
    for number, (first, said) in enumerate([(False, "without"), (True, "with")]):
        run = RunFolder(tmp_path / f"run{number}")
        prepare(replace(plain, trust=first), run)
        prepare(replace(plain, trust=first), run)
        with pytest.raises(FormatError, match=f"another run: begun {said} --trust; choose"):
            prepare(replace(plain, trust=not first), run)
