from dataclasses import replace
from pathlib import Path

import pytest
from google.protobuf import text_format

from pycaffe_prune.engines.differences import net_differences, settings_differences
from pycaffe_prune.engines.job import Job, TrainRequest
from pycaffe_prune.engines.prepare import prepare
from pycaffe_prune.engines.run_folder import RunFolder
from pycaffe_prune.errors import FormatError
from pycaffe_prune.formats.caffe_pb2 import NetParameter, SolverParameter

NET = """name: "n"
layer { name: "data" type: "Data" include { phase: TRAIN }
  data_param { source: "/a/lmdb" batch_size: 8 } }
layer { name: "data" type: "Data" include { phase: TEST }
  data_param { source: "/a/test" batch_size: 4 } }
layer { name: "ip1" type: "InnerProduct" bottom: "data"
  param { lr_mult: 1 } param { lr_mult: 2 }
  inner_product_param { num_output: 100 weight_filler { type: "gaussian" std: 0.1 } } }
layer { name: "pool" type: "Pooling" pooling_param { pool: MAX kernel_size: 2 } }
"""


def net_of(text: str) -> NetParameter:
    return text_format.Parse(text, NetParameter())


@pytest.mark.parametrize(
    ("old", "new", "told"),
    [
        ("num_output: 100", "num_output: 90", ["layer 'ip1': num_output 100 -> 90"]),
        ("std: 0.1", "std: 0.2", ["layer 'ip1': weight_filler.std 0.1 -> 0.2"]),
        ("lr_mult: 2", "lr_mult: 0", ["layer 'ip1': param[1].lr_mult 2.0 -> 0.0"]),
        ("pool: MAX", "pool: AVE", ["layer 'pool': pool MAX -> AVE"]),
        ("kernel_size: 2", "kernel_size: 2 pad: 1", ["layer 'pool': pad not set -> 1"]),
        ("batch_size: 4", "batch_size: 5", ["layer 'data' (TEST): batch_size 4 -> 5"]),
        ('name: "n"', 'name: "m"', ["name n -> m"]),
        ('"pool" type', '"pool1" type', ["layer 'pool' is gone", "layer 'pool1' is new"]),
        ("/a/lmdb", "/elsewhere/lmdb", []),
    ],
)
def test_what_differs_in_a_net_is_told_with_both_values(
    old: str, new: str, told: list[str]
) -> None:
    assert old in NET
    assert list(net_differences(net_of(NET), net_of(NET.replace(old, new)))) == told


def test_another_order_of_layers_is_told() -> None:
    net, other = net_of(NET), net_of(NET)
    del other.layer[2]
    other.layer.add().CopyFrom(net.layer[2])
    assert list(net_differences(net, other)) == ["the order of the layers"]


def test_what_differs_in_a_solver_is_told_but_not_what_decides_nothing() -> None:
    old = SolverParameter(base_lr=0.01, stepvalue=[10, 20], max_iter=5, display=1, net="a")
    new = SolverParameter(base_lr=1e-5, stepvalue=[10], momentum=0.9, max_iter=6, net="b")
    assert list(settings_differences(old, new)) == [
        "base_lr 0.01 -> 1e-05",
        "stepvalue [10, 20] -> [10]",
        "momentum not set -> 0.9",
    ]


def test_a_run_of_an_older_version_is_told_to_be_one(request_for, tmp_path: Path) -> None:
    request: TrainRequest = request_for()
    folder = RunFolder(tmp_path / "run")
    job = prepare(request, folder)
    older = job.model_copy(update={"files": (), "net_sha256": "0" * 64})
    folder.job.write_text(older.model_dump_json())
    with pytest.raises(FormatError, match="older version, which knew data by their names"):
        prepare(request, folder)


@pytest.mark.parametrize(("old", "read"), [(None, ()), ("a", ("a",)), (["a", "b"], ("a", "b"))])
def test_the_one_file_of_weights_of_older_versions_is_read(
    request_for, tmp_path: Path, old: object, read: tuple[str, ...]
) -> None:
    fields = prepare(request_for(), RunFolder(tmp_path / "run")).model_dump()
    job = Job.model_validate({**fields, "weights": old, "weights_sha256": old})
    assert (job.weights, job.weights_sha256) == (read, read)


def test_many_differences_are_counted(request_for, tmp_path: Path) -> None:
    request: TrainRequest = request_for()
    folder = RunFolder(tmp_path / "run")
    prepare(request, folder)
    text = request.solver.read_text()
    settings = "clip_gradients: 1 iter_size: 2 regularization_type: 'L1' average_loss: 2 delta: 1"
    request.solver.write_text(f"{text} rms_decay: 0.5 momentum2: 0.9 {settings}")
    with pytest.raises(FormatError, match=r"iter_size .*; and 2 more; choose another --out"):
        prepare(replace(request, seed=4), folder)
    assert Job.model_validate_json(folder.job.read_bytes()).seed == 3
