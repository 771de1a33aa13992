"""From a request to a run folder: what is refused, what is written, what is the same run."""

import shutil
from dataclasses import replace
from pathlib import Path

import h5py
import lmdb
import numpy as np
import pytest
from google.protobuf import text_format

from pycaffe_prune.engines.job import EvaluationJob, Job, TrainRequest
from pycaffe_prune.engines.net_tests import untested_warnings
from pycaffe_prune.engines.prepare import prepare, prepare_evaluation
from pycaffe_prune.engines.run_folder import RunFolder
from pycaffe_prune.engines.solver_nets import net_of_solver
from pycaffe_prune.errors import DataError, FormatError, SurgeryError
from pycaffe_prune.formats.caffe_pb2 import TEST, LayerParameter
from pycaffe_prune.formats.caffemodel import Caffemodel, Layer, read_caffemodel, write_caffemodel
from pycaffe_prune.formats.mask import MaskFile, write_mask
from pycaffe_prune.formats.prototxt import read_net, read_solver, write_prototxt


@pytest.fixture
def ask(digits, make_solver) -> TrainRequest:
    return TrainRequest(solver=make_solver(), data=digits, seed=3)


@pytest.fixture
def folder(tmp_path) -> RunFolder:
    return RunFolder(tmp_path / "run")


def _weights(path: Path, rows: int = 20, name: str = "ip1") -> Path:
    blobs = np.ones((rows, 784), np.float32), np.ones(rows, np.float32)
    layer = Layer(LayerParameter(name=name, type="InnerProduct"), blobs)
    write_caffemodel(path, Caffemodel((layer,)))
    return path


def _edit(solver: Path, old: str, new: str, file: str = "net.prototxt") -> None:
    path = solver.parent / file
    text = path.read_text()
    assert old in text
    path.write_text(text.replace(old, new))


def test_the_folder_holds_all_that_a_worker_needs(ask, folder, digits):
    job = prepare(ask, folder)
    assert Job.model_validate_json(folder.job.read_bytes()) == job
    net = read_net(folder.net)
    assert [layer.data_param.source for layer in net.layer[:2]] == [
        str(digits / "mnist_train_lmdb"),
        str(digits / "mnist_test_lmdb"),
    ]
    solver = read_solver(folder.solver)
    assert solver.net == str(folder.net)
    assert (solver.random_seed, solver.max_iter, solver.base_lr) == (3, 200, pytest.approx(0.01))
    assert (job.tests[0].images, job.batch, job.headline) == (297, 64, 0)
    assert job.tests[0].in_order
    plan = job.tests[0].plan
    assert plan is not None
    assert (plan.layer, plan.scores, plan.labels) == ("accuracy", "ip2", "label")


def test_a_data_layer_comes_round_after_the_least_common_multiple(ask, folder):
    # 1,500 images in batches of 64: 64 * 375 = 24,000 = 16 * 1,500.
    assert prepare(ask, folder).replay == (("data", 375),)


def test_layers_that_draw_random_numbers_never_come_round(digits, make_solver, folder):
    request = TrainRequest(solver=make_solver(random=True), data=digits)
    assert prepare(request, folder).replay == (("data", 0), ("drop1", 0))


def test_a_moved_data_folder_is_the_same_run(ask, folder, digits, tmp_path):
    first = prepare(ask, folder)
    moved = tmp_path / "elsewhere"
    shutil.copytree(digits, moved)
    second = prepare(replace(ask, data=moved), folder)
    assert first.differences(second) == []


@pytest.mark.parametrize(
    ("changed", "named"),
    [
        ({"seed": 4}, "seed 3 -> 4"),
        ({"weights": True}, "other weights"),
        ({"mask": True}, "other mask"),
    ],
)
def test_a_folder_of_another_run_is_refused_and_left_alone(ask, folder, tmp_path, changed, named):
    prepare(ask, folder)
    before = folder.job.read_bytes()
    if "weights" in changed:
        changed = {"weights": _weights(tmp_path / "w.caffemodel")}
    if "mask" in changed:
        write_mask(tmp_path / "m.mask.h5", MaskFile({("ip1", 0): np.ones((20, 784), bool)}, "", ""))
        changed = {"mask": tmp_path / "m.mask.h5"}
    with pytest.raises(FormatError, match=f"holds another run: {named}; choose"):
        prepare(replace(ask, **changed), folder)
    assert folder.job.read_bytes() == before


def test_another_rate_is_another_run_another_length_is_not(ask, folder):
    prepare(ask, folder)
    prepare(replace(ask, max_iter=500, snapshot=10, test_interval=0), folder)
    _edit(ask.solver, "base_lr: 0.01", "base_lr: 0.02", "solver.prototxt")
    with pytest.raises(FormatError, match=r"another run: base_lr 0\.01 -> 0\.02; choose"):
        prepare(ask, folder)


def test_under_poly_the_length_decides_the_rates_and_so_the_run(ask, folder):
    _edit(ask.solver, '"inv"', '"poly"', "solver.prototxt")
    prepare(ask, folder)
    with pytest.raises(FormatError, match="max_iter"):
        prepare(replace(ask, max_iter=500), folder)


def _refused(request: TrainRequest, folder: RunFolder, error: type[Exception], match: str) -> None:
    with pytest.raises(error, match=match):
        prepare(request, folder)
    assert not folder.path.exists()


def test_python_layers_are_refused(ask, folder):
    _edit(ask.solver, 'type: "ReLU"', 'type: "Python" python_param { module: "os" layer: "x" }')
    _refused(ask, folder, FormatError, r"relu1.*Python layer.*'os'")


@pytest.mark.parametrize("field", ["fork { a: 1 }", "engine: MKL2017", "num_ouput: 3"])
def test_fields_that_caffe_does_not_know_are_refused_by_name(ask, folder, field):
    _edit(ask.solver, "num_output: 20", f"num_output: 20 {field}")
    name = field.split()[0].rstrip(":")
    _refused(ask, folder, FormatError, rf"ip1.*'inner_product_param\.{name}'.*stock Caffe does not")


def test_fields_of_a_solver_that_caffe_does_not_know_are_refused_by_name(ask, folder):
    _edit(ask.solver, "base_lr", "momentun: 0.9 base_lr", ask.solver.name)
    _refused(ask, folder, FormatError, r"'momentun' \(did you mean 'momentum'\?\)")


def test_a_missing_lmdb_is_named_with_the_remedy(ask, folder, tmp_path):
    _refused(replace(ask, data=tmp_path), folder, DataError, r"mnist_train_lmdb.*caffe-prune data")


def test_a_data_layer_without_a_batch_size_is_refused(ask, folder):
    _edit(ask.solver, "batch_size: 64", "")
    with pytest.raises(FormatError, match=r"net\.prototxt: layer 'data' .* has no batch_size"):
        prepare(ask, folder)
    assert not folder.job.exists()


def test_an_empty_lmdb_is_refused(ask, folder, tmp_path):
    for name in ("mnist_train_lmdb", "mnist_test_lmdb"):
        lmdb.open(str(tmp_path / name)).close()
    _refused(replace(ask, data=tmp_path), folder, DataError, "is empty")


def test_a_damaged_lmdb_is_refused(ask, folder, tmp_path):
    for name in ("mnist_train_lmdb", "mnist_test_lmdb"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "data.mdb").write_bytes(b"no lmdb" * 5000)
    _refused(replace(ask, data=tmp_path), folder, DataError, "cannot be read")


def test_weights_of_another_net_are_refused(ask, folder, tmp_path):
    weights = _weights(tmp_path / "w.caffemodel", name="fc6")
    _refused(replace(ask, weights=weights), folder, SurgeryError, r"fc6.*ip1, ip2")


def test_weights_of_another_width_are_refused_with_both(ask, folder, tmp_path):
    weights = _weights(tmp_path / "w.caffemodel", rows=30)
    _refused(
        replace(ask, weights=weights),
        folder,
        SurgeryError,
        r"'ip1', blob 0: the net says 20x784, .* holds 30x784",
    )


def test_two_layers_of_one_name_with_weights_are_refused(ask, folder):
    _edit(ask.solver, '{ name: "ip2"', '{ name: "ip1"')
    _refused(ask, folder, SurgeryError, r"two layers of the name 'ip1' \(InnerProduct and Inner")


def test_a_mask_of_another_net_is_refused(ask, folder, tmp_path):
    write_mask(tmp_path / "m.mask.h5", MaskFile({("fc6", 0): np.ones((2, 2), bool)}, "", ""))
    _refused(replace(ask, mask=tmp_path / "m.mask.h5"), folder, SurgeryError, "fc6")


def test_a_mask_of_another_shape_is_refused_with_both(ask, folder, tmp_path):
    write_mask(tmp_path / "m.mask.h5", MaskFile({("ip1", 0): np.ones((20, 9), bool)}, "", ""))
    request = replace(ask, mask=tmp_path / "m.mask.h5", weights=_weights(tmp_path / "w.caffemodel"))
    _refused(request, folder, SurgeryError, r"20x9.*20x784")


def test_a_solver_without_iterations_is_refused(ask, folder):
    _edit(ask.solver, "max_iter: 200", "", "solver.prototxt")
    _refused(ask, folder, FormatError, "--max-iter")


def test_a_solver_finds_its_net_wherever_the_command_is_typed(ask, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert net_of_solver(ask.solver) == ask.solver.parent / "net.prototxt"
    ask.solver.write_text('net: "no/such.prototxt"')
    with pytest.raises(FormatError, match=r"no/such\.prototxt"):
        net_of_solver(ask.solver)
    ask.solver.write_text("base_lr: 1")
    with pytest.raises(FormatError, match="names no net"):
        net_of_solver(ask.solver)


OTHER = """
layer {{ name: "other" type: "Data" top: "other"
  data_param {{ source: "{source}" batch_size: {batch} backend: LMDB }} }}
layer {{ name: "silence" type: "Silence" bottom: "other" }}
"""


def _add(solver: Path, layers: str) -> None:
    net = solver.parent / "net.prototxt"
    net.write_text(layers + net.read_text())  # before: the first data layer is not the judge's


def test_images_are_those_of_the_layer_that_brings_the_labels(ask, folder, digits, tmp_path):
    alone = prepare(ask, RunFolder(tmp_path / "alone"))
    _add(ask.solver, OTHER.format(source="mnist_train_lmdb", batch=64))
    both = prepare(ask, folder)
    assert both.tests[0].images == 297
    assert both.tests[0].cycled_images == alone.tests[0].cycled_images
    assert both.batch == 64
    net, weights = ask.solver.parent / "net.prototxt", [_weights(tmp_path / "w.caffemodel")]
    job = prepare_evaluation(net, weights, digits, folder)
    assert (job.test_images, job.rewind) == (297, True)
    with pytest.raises(DataError, match="holds 297 images, fewer than 298"):
        prepare_evaluation(net, weights, digits, folder, 298)


def test_the_labels_layer_is_found_through_layers_between(ask, folder):
    _edit(ask.solver, 'bottom: "ip2" bottom: "label"', 'bottom: "ip2" bottom: "same"')
    net = ask.solver.parent / "net.prototxt"
    text = net.read_text()
    between = 'layer { name: "same" type: "Power" bottom: "label" top: "same" }\n'
    net.write_text(text.replace('layer { name: "ip1"', between + 'layer { name: "ip1"'))
    assert prepare(ask, folder).tests[0].images == 297


def test_a_training_that_only_a_program_could_feed_is_refused(ask, folder):
    net = ask.solver.parent / "net.prototxt"
    layers = read_net(net)
    layers.layer[0].type = "MemoryData"
    write_prototxt(net, layers)
    with pytest.raises(FormatError, match=r"'data' \(MemoryData\) is fed by a program"):
        prepare(ask, folder)
    assert not folder.path.exists()


@pytest.mark.parametrize(
    ("backend", "sentence"),
    [("backend: LEVELDB", "has backend: LEVELDB"), ("", "has no backend, which means LEVELDB")],
)
def test_leveldbs_are_refused_by_name(ask, folder, backend, sentence):
    _edit(ask.solver, "batch_size: 100 backend: LMDB", f"batch_size: 100 {backend}")
    with pytest.raises(FormatError, match=rf"'data' \(Data\) {sentence}.*say backend: LMDB"):
        prepare(ask, folder)


HDF5 = '"HDF5Data" top: "data" top: "label" hdf5_data_param { source: "list.txt" batch_size: 9 }'
MEMORY = """"MemoryData" top: "data" top: "label"
  memory_data_param { batch_size: 9 channels: 1 height: 28 width: 28 }"""


def _test_by(solver: Path, layer: str) -> Path:
    net = solver.parent / "net.prototxt"
    layers = read_net(net)
    layers.layer[1].CopyFrom(text_format.Parse(f'name: "data" type: {layer}', LayerParameter()))
    layers.layer[1].include.add(phase=TEST)
    write_prototxt(net, layers)
    return net


def test_rows_of_hdf5_files_are_counted(ask, folder, digits, tmp_path):
    net = _test_by(ask.solver, HDF5)
    data = tmp_path / "data"
    shutil.copytree(digits, data)
    for name, rows in (("a.h5", 5), ("b.h5", 7)):
        with h5py.File(data / name, "w") as file:
            file["data"] = np.zeros((rows, 1, 28, 28), np.float32)
            file["label"] = np.zeros(rows, np.float32)
    (data / "list.txt").write_text(f"{data / 'a.h5'}\n{data / 'b.h5'}\n")
    job = prepare(replace(ask, data=data), folder)
    (test,) = job.tests
    assert (test.images, test.cycled_images, test.untested) == (12, 0, None)
    assert read_net(folder.net).layer[1].hdf5_data_param.source == str(data / "list.txt")
    weights = [_weights(tmp_path / "w.caffemodel")]
    assert prepare_evaluation(net, weights, data, folder).test_images == 12
    (data / "list.txt").write_text(f"{data / 'a.h5'}\na.h5\n")
    with pytest.raises(FormatError, match=r"'data' \(HDF5Data\).*'a\.h5'.*absolute"):
        prepare(replace(ask, data=data), folder)


def test_a_test_whose_images_cannot_be_counted_is_said_not_to_be_made(
    ask, folder, digits, tmp_path
):
    net = _test_by(ask.solver, MEMORY)
    job = prepare(ask, folder)
    assert (job.tests[0].images, job.tests[0].plan, job.headline) == (0, None, None)
    told = next(untested_warnings(job)).message
    assert "no test will be made" in told
    assert "'data' (MemoryData)" in told
    assert "only a program feeds" in told
    weights = [_weights(tmp_path / "w.caffemodel")]
    with pytest.raises(FormatError, match=r"labels 'label' .* layer 'data' \(MemoryData\)"):
        prepare_evaluation(net, weights, digits, folder)


def test_the_judged_layer_can_be_named(ask, folder):
    job = prepare(replace(ask, accuracy="loss"), folder)
    plan = job.tests[0].plan
    assert plan is not None
    assert (plan.layer, plan.scores) == ("loss", "ip2")
    with pytest.raises(FormatError, match=r"'top-1' to judge by; there are: accuracy, loss"):
        prepare(replace(ask, accuracy="top-1"), folder)


def test_a_shuffled_list_is_tested_in_whole_batches_only(ask, folder, digits, tmp_path):
    data = tmp_path / "data"
    shutil.copytree(digits, data)
    with h5py.File(data / "a.h5", "w") as file:
        file["data"] = np.zeros((18, 1, 28, 28), np.float32)
        file["label"] = np.zeros(18, np.float32)
    (data / "list.txt").write_text(f"{data / 'a.h5'}\n")
    _test_by(ask.solver, HDF5.replace("batch_size: 9", "batch_size: 9 shuffle: true"))
    (test,) = prepare(replace(ask, data=data), folder).tests
    assert (test.images, test.in_order) == (18, False)
    _edit(ask.solver, "batch_size: 9", "batch_size: 7")
    job = prepare(replace(ask, data=data), RunFolder(tmp_path / "other"))
    assert (job.tests[0].plan, job.tests[0].untested, job.headline) == (None, None, None)
    told = next(untested_warnings(job)).message
    assert "means of its outputs over 3 batches" in told
    assert "shuffles 18 images and brings 7 at a time" in told


def test_a_net_without_a_judge_cannot_be_evaluated(ask, folder, digits, tmp_path):
    net = ask.solver.parent / "net.prototxt"
    _edit(ask.solver, 'type: "Accuracy"', 'type: "Silence"')
    _edit(ask.solver, 'type: "SoftmaxWithLoss"', 'type: "Silence"')
    with pytest.raises(FormatError, match="no Accuracy"):
        prepare_evaluation(net, [_weights(tmp_path / "w.caffemodel")], digits, folder)


@pytest.mark.parametrize(
    ("images", "batch", "rewind"), [(None, 99, False), (None, 100, True), (198, 99, True)]
)
def test_only_whole_passes_in_whole_batches_need_no_rewinding(
    ask, folder, digits, tmp_path, images, batch, rewind
):
    _edit(ask.solver, "batch_size: 100", f"batch_size: {batch}")
    net, weights = ask.solver.parent / "net.prototxt", [_weights(tmp_path / "w.caffemodel")]
    job = prepare_evaluation(net, weights, digits, folder, images)
    assert (job.test_images, job.rewind) == (images or 297, rewind)
    assert EvaluationJob.model_validate_json(folder.job.read_bytes()) == job


def test_more_test_images_than_there_are_is_refused(ask, folder, digits, tmp_path):
    net, weights = ask.solver.parent / "net.prototxt", [_weights(tmp_path / "w.caffemodel")]
    with pytest.raises(DataError, match="holds 297 images, fewer than 298"):
        prepare_evaluation(net, weights, digits, folder, 298)
    assert not folder.path.exists()


def test_caffemodels_that_would_leave_each_others_blobs_in_the_net_are_refused(
    ask, folder, digits, tmp_path
):
    net = ask.solver.parent / "net.prototxt"
    both = [_weights(tmp_path / "a.caffemodel"), _weights(tmp_path / "b.caffemodel")]
    blobs = np.ones((10, 20), np.float32), np.ones(10, np.float32)
    extra = Layer(LayerParameter(name="ip2", type="InnerProduct"), blobs)
    model = read_caffemodel(both[1])
    write_caffemodel(both[1], Caffemodel((*model.layers, extra)))
    with pytest.raises(
        SurgeryError, match=r"b\.caffemodel: layer 'ip2', blob 0 is not as in .*a\."
    ):
        prepare_evaluation(net, both, digits, folder)
    assert not folder.path.exists()


def test_moved_data_is_the_same_net_to_evaluate(ask, folder, digits, tmp_path):
    net, weights = ask.solver.parent / "net.prototxt", [_weights(tmp_path / "w.caffemodel")]
    shutil.copytree(digits, tmp_path / "elsewhere")
    jobs = [
        prepare_evaluation(net, weights, place, folder)
        for place in (digits, tmp_path / "elsewhere")
    ]
    assert jobs[0].net_sha256 == jobs[1].net_sha256


def test_preparing_the_same_run_again_changes_no_byte(ask, folder):
    prepare(ask, folder)
    before = {path.name: path.read_bytes() for path in folder.path.iterdir()}
    prepare(ask, folder)
    assert {path.name: path.read_bytes() for path in folder.path.iterdir()} == before


@pytest.mark.parametrize("name", ["data_subfolder", "aux_heads"])
def test_the_data_of_a_caffe_tree_are_found_in_the_folder_that_is_named(
    digits: Path, tmp_path: Path, name: str
) -> None:
    solver = Path(__file__).parents[1] / "cases" / f"{name}_solver.prototxt"
    prepare(TrainRequest(solver=solver, data=digits), RunFolder(tmp_path))
    net = read_net(tmp_path / "net.prototxt")
    sources = {layer.data_param.source for layer in net.layer if layer.type == "Data"}
    assert sources <= {str(digits / "mnist_train_lmdb"), str(digits / "mnist_test_lmdb")}
