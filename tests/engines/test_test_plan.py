"""Which of a net's heads a test judges, and what both engines find there, as Caffe does."""

import os
import shutil
import subprocess
from pathlib import Path

import pytest
from google.protobuf import text_format

from pycaffe_prune.engines.job import TrainRequest
from pycaffe_prune.engines.run import train
from pycaffe_prune.engines.test_plan import headline_mark
from pycaffe_prune.engines.test_plan import plan_test as plan_of
from pycaffe_prune.errors import FormatError
from pycaffe_prune.formats.caffe_pb2 import NetParameter

CASES = Path(__file__).parent.parent / "cases"
DATA = 'layer { name: "d" type: "Data" top: "x" top: "label" data_param { batch_size: 5 } }'


def _head(name: str, weight: float, *top_ks: int) -> str:
    judges = "".join(
        f'layer {{ name: "{name}/top-{k}" type: "Accuracy" bottom: "{name}" bottom: "label" '
        f'top: "{name}/top-{k}" accuracy_param {{ top_k: {k} }} }}'
        for k in top_ks
    )
    loss = (
        f'layer {{ name: "{name}/loss" type: "SoftmaxWithLoss" bottom: "{name}" bottom: "label" '
        f'top: "{name}/loss" loss_weight: {weight} }}'
    )
    return (
        f'layer {{ name: "{name}" type: "InnerProduct" bottom: "x" top: "{name}" }}'
        f"{loss if weight else ''}{judges}"
    )


def _plan(*layers: str):
    return plan_of(text_format.Parse(DATA + "".join(layers), NetParameter()).layer)


@pytest.mark.parametrize(
    ("heads", "headline"),
    [
        ([("a", 0.3, 1, 5), ("b", 1, 1, 5)], "b/top-1"),
        ([("b", 1, 5, 1), ("a", 0.3, 1)], "b/top-1"),
        ([("a", 1, 1), ("b", 1, 5)], "b/top-5"),  # ties: the last head
        ([("a", 0, 1, 5), ("b", 0, 1, 5)], "b/top-1"),  # no losses in the phase TEST
        ([("a", 0.3, 1), ("b", 1)], "a/top-1"),  # the main head has no Accuracy
        ([("a", 0.3), ("b", 1)], "b/loss"),
        ([("b", 1), ("a", 0.3)], "b/loss"),
        ([("a", 1), ("b", 1)], "b/loss"),
    ],
)
def test_the_headline_is_that_of_the_heaviest_loss(heads, headline):
    plan = _plan(*(_head(*head) for head in heads))
    assert plan.layer == headline
    assert plan.scores == headline[0]
    assert (plan.loss is None) == all(weight == 0 for _, weight, *_ in heads)
    assert plan.loss is None or plan.loss.scores == plan.scores


def test_where_the_test_net_has_no_loss_that_of_the_train_net_weighs_its_heads():
    judged = [_head("a", 0, 1), _head("b", 0, 1), _head("c", 0, 1)]
    layers = text_format.Parse(DATA + "".join(judged), NetParameter()).layer
    euclid = (
        'layer { name: "e" type: "EuclideanLoss" bottom: "label" bottom: "a" top: "e" '
        "loss_weight: 0.7 }"
    )
    trained = [_head("a", 0) + euclid, _head("b", 0.9), _head("c", 0.3)]
    for count, headline in ((3, "b/top-1"), (1, "a/top-1"), (0, "c/top-1")):
        train_net = text_format.Parse(DATA + "".join(trained[:count]), NetParameter()).layer
        plan = plan_of(layers, train=train_net)
        assert (plan.layer, plan.loss, plan.loss_blob) == (headline, None, None)


def test_a_loss_whose_first_bottom_is_the_label_is_that_of_its_scores():
    plan = _plan(
        _head("b", 0.5, 1) + _head("a", 0, 1),
        'layer { name: "e" type: "EuclideanLoss" bottom: "label" bottom: "a" top: "e" }',
    )
    assert (plan.layer, plan.loss_blob) == ("a/top-1", "e")


def test_scores_belong_to_a_loss_through_softmax_too():
    behind = (
        'layer { name: "p" type: "Softmax" bottom: "a" top: "p" }'
        'layer { name: "acc" type: "Accuracy" bottom: "p" bottom: "label" top: "acc" }'
    )
    plan = _plan(_head("a", 1), behind, _head("b", 0.3, 1))
    assert (plan.layer, plan.scores, plan.loss.scores) == ("acc", "p", "a")


def test_what_the_layers_say_is_in_the_plan():
    plan = _plan(
        'layer { name: "loss" type: "SoftmaxWithLoss" bottom: "x" bottom: "label" top: "loss" '
        "softmax_param { axis: 2 } loss_param { ignore_label: 255 normalize: false } }",
        'layer { name: "acc" type: "Accuracy" bottom: "x" bottom: "label" top: "acc" '
        "accuracy_param { axis: -1 top_k: 3 ignore_label: 0 } }",
    )
    assert (plan.axis, plan.top_k, plan.ignore_label, plan.batch) == (-1, 3, 0, 5)
    assert (plan.loss.axis, plan.loss.ignore_label) == (2, 255)
    assert plan.loss.normalization == "BATCH_SIZE"


def test_another_loss_is_read_from_its_own_blob():
    plan = _plan(
        'layer { name: "hinge" type: "HingeLoss" bottom: "x" bottom: "label" top: "h" }'
        'layer { name: "acc" type: "Accuracy" bottom: "x" bottom: "label" top: "acc" }'
    )
    assert (plan.layer, plan.loss, plan.loss_blob) == ("acc", None, "h")


def test_the_headline_can_be_chosen_and_unknown_names_are_refused_with_the_list():
    layers = text_format.Parse(DATA + _head("a", 0.3, 1) + _head("b", 1, 1), NetParameter()).layer
    assert plan_of(layers, "a/top-1").scores == "a"
    assert plan_of(layers, "a/loss").layer == "a/loss"
    with pytest.raises(FormatError, match="'c' to judge by; there are: a/loss, a/top-1, b/loss"):
        plan_of(layers, "c")


def test_a_net_that_compares_no_scores_with_labels_has_no_plan():
    assert _plan('layer { name: "e" type: "EuclideanLoss" bottom: "x" bottom: "label" }') is None


def test_a_finished_run_is_not_passed_off_as_tested_by_another_layer(
    torch_engine, request_for, tmp_path
):
    run = tmp_path / "run"
    first = train(request_for(max_iter=2, accuracy="loss"), run, torch_engine, lambda _: None)
    assert first.final_test.accuracy_name == "loss"
    again = train(request_for(max_iter=2, accuracy="loss"), run, torch_engine, lambda _: None)
    assert again == first
    with pytest.raises(FormatError, match=r"judged in 'loss' -> in 'accuracy' .*another --out"):
        train(request_for(max_iter=2, accuracy="accuracy"), run, torch_engine, lambda _: None)
    with pytest.raises(FormatError, match="holds another run"):  # the rule's choice is another one
        train(request_for(max_iter=3), run, torch_engine, lambda _: None)


def test_a_result_needs_a_mark_where_a_net_can_be_judged_otherwise():
    def mark(*layers: str, wanted: str | None = None) -> str | None:
        test = text_format.Parse(DATA + "".join(layers), NetParameter()).layer
        return headline_mark(test, plan_of(test, wanted))

    assert mark(_head("a", 1, 1)) is None
    assert mark(_head("a", 1)) is None
    several = {mark(_head("a", 1, 1), _head("b", 1, 1), wanted=f"{one}/top-1") for one in "ab"}
    own_loss = mark(_head("a", 1, 1), wanted="a/loss")
    found = {*several, own_loss, mark(_head("a", 1, 5)), mark(_head("a", 1), _head("b", 1))}
    assert None not in found
    assert len(found) == 5


# Caffe's Solver::Test on a new net, one epoch of whole batches: the outputs' means.
OWN_TEST = """
import sys, caffe
net, batches = caffe.Net(sys.argv[1], sys.argv[2], caffe.TEST), int(sys.argv[3])
found = [{k: float(v.sum()) for k, v in net.forward().items()} for _ in range(batches)]
for name in found[0]:
    print(name, sum(one[name] for one in found) / batches)
"""


def _caffes_own(caffe_python: Path, folder: Path, batches: int) -> dict[str, float]:
    files = [folder / "net.prototxt", folder / "final.caffemodel"]
    own = subprocess.run(
        [caffe_python, "-c", OWN_TEST, *files, str(batches)],
        capture_output=True,
        text=True,
        check=True,
        env=os.environ | {"GLOG_minloglevel": "2"},
    )
    return {name: float(mean) for name, mean in map(str.split, own.stdout.splitlines())}


@pytest.mark.real_caffe
@pytest.mark.parametrize(
    ("case", "batches", "counted"),
    [
        ("aux_heads", 3, 297),
        ("ignore_label", 3, 270),
        ("topk", 3, 297),
        ("seg", 10, 2560),
        ("imagedata", 3, 30),
    ],
)
def test_accuracy_and_loss_are_those_of_caffes_own_layers(
    case, batches, counted, engine, digits, caffe_python, tmp_path
):
    data = digits
    if case == "seg":
        data = tmp_path / "data"
        for lmdb in ("seg_image_lmdb", "seg_label_lmdb"):
            shutil.copytree(CASES / lmdb, data / lmdb)
    if case == "imagedata":
        data = tmp_path / "data"
        shutil.copytree(CASES / "imgs", data / "imgs")
        shutil.copy(CASES / "list.txt", data)
    request = TrainRequest(CASES / f"{case}_solver.prototxt", data=data, test_interval=0)
    found = train(request, tmp_path / "run", engine, lambda _: None).final_test
    own = _caffes_own(caffe_python, tmp_path / "run", batches)
    name = "acc" if case in {"seg", "imagedata"} else "top-1"
    # Where labels are ignored batches count unlike many places, which Caffe's mean does not weigh.
    slack = 0.01 if case == "ignore_label" else 1e-6
    assert (found.accuracy_name, found.counted) == (name, counted)
    assert found.accuracy == pytest.approx(own[name], abs=slack)
    assert found.loss == pytest.approx(own["loss"], rel=1e-4, abs=1e-7)
    reported = {name: sum(values) for name, values in found.outputs.items()}
    assert reported == pytest.approx(own, rel=1e-4, abs=1e-6)
    if (case, engine.name) == ("aux_heads", "caffe"):
        assert (found.accuracy, own["aux/top-1"]) == (
            pytest.approx(0.811, abs=5e-4),
            pytest.approx(0.114, abs=5e-4),
        )
    if (case, engine.name) == ("seg", "caffe"):
        assert (found.accuracy, found.loss) == (1.0, pytest.approx(3.4e-5, rel=0.02))
