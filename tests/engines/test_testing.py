"""Counts and losses of a test: equal to a direct count over images, classes and places."""

from types import SimpleNamespace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from pycaffe_prune.engines.caffe.caffe_worker import testing
from pycaffe_prune.engines.test_plan import SoftmaxLoss, TestPlan
from pycaffe_prune.formats import right_answers

SCORES = st.floats(-1e4, 1e4, width=32)


@given(
    scores=arrays(np.float32, (7, 4), elements=SCORES),
    labels=arrays(np.int64, 7, elements=st.integers(0, 3)),
    top_k=st.integers(1, 4),
    ignored=st.none() | st.integers(0, 3),
)
def test_an_answer_is_right_when_fewer_than_top_k_others_reach_the_true_one(
    scores, labels, top_k, ignored
):
    right, counted, finite = testing.judge(scores, labels, top_k, ignored)
    expected = [
        label != ignored
        and sum(other >= row[label] for place, other in enumerate(row) if place != label) < top_k
        for row, label in zip(scores, labels, strict=True)
    ]
    assert right.tolist() == expected
    assert counted.tolist() == [label != ignored for label in labels]
    assert finite.all()
    assert testing.softmax_loss(scores, labels, ignored)[0] >= 0


def test_equal_scores_are_wrong_and_cost_the_logarithm_of_the_classes():
    scores, labels = np.zeros((3, 10), np.float32), np.array([0, 4, 9])
    assert testing.judge(scores, labels)[0].sum() == 0
    assert testing.softmax_loss(scores, labels) == (pytest.approx(3 * np.log(10)), 3)


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_a_row_that_is_not_finite_is_never_right(bad):
    scores = np.zeros((2, 3), np.float32)
    scores[:, 1] = 5
    scores[0, 2] = bad
    right, _, finite = testing.judge(scores, np.array([1, 1]), top_k=3)
    assert (right.tolist(), finite.tolist()) == ([False, True], [False, True])
    assert np.isnan(testing.softmax_loss(scores, np.array([1, 1]))[0])


def test_a_hopeless_score_costs_no_more_than_caffes_smallest_probability():
    scores = np.array([[1000.0, 0.0]], np.float32)
    lost, _ = testing.softmax_loss(scores, np.array([1]))
    assert lost == pytest.approx(-np.log(np.finfo(np.float32).tiny))


@pytest.mark.parametrize("label", [-1, 3, 255])
def test_a_label_that_names_no_class_is_said_unless_it_is_ignored(label):
    scores, labels = np.zeros((2, 3), np.float32), np.array([0, label])
    with pytest.raises(SystemExit, match=f"{label}, but there are scores of 3 classes"):
        testing.judge(scores, labels)
    with pytest.raises(SystemExit, match="of 3 classes"):
        testing.softmax_loss(scores, labels)
    assert testing.judge(scores, labels, 1, label)[1].tolist() == [True, False]
    assert testing.softmax_loss(scores, labels, label)[1] == 1


class _Net:
    """A test net whose scores come in batches from a ring of images."""

    def __init__(self, scores, labels, batch):
        self._ring, self._batch, self._at = (scores, labels), batch, 0
        self.outputs = ["other"]
        self.blobs = {name: SimpleNamespace(data=None) for name in ("s", "l", "other")}

    def forward(self):
        places = np.arange(self._at, self._at + self._batch) % len(self._ring[1])
        self._at += self._batch
        self.blobs["s"].data = self._ring[0][places]
        self.blobs["l"].data = self._ring[1][places].astype(np.float32)
        self.blobs["other"].data = self.blobs["l"].data.mean()


def _plan(batch, *, axis=1, top_k=1, ignore_label=None, normalization="VALID"):
    loss = SoftmaxLoss(
        scores="s", labels="l", axis=axis, ignore_label=ignore_label, normalization=normalization
    )
    return TestPlan(
        layer="acc",
        scores="s",
        labels="l",
        axis=axis,
        top_k=top_k,
        ignore_label=ignore_label,
        batch=batch,
        loss=loss,
        loss_blob=None,
    )


def _tester(scores, labels, plan, **more):
    net = _Net(scores, labels, plan.batch)
    return testing.Tester(net, plan.model_dump(), len(scores), **more)


@given(
    images=st.integers(1, 40),
    batch=st.integers(1, 17),
    seed=st.integers(0, 99),
    more=st.integers(1, 99),
)
def test_each_image_counts_once_whatever_the_batch_and_wherever_the_cursor_is(
    images, batch, seed, more
):
    random = np.random.default_rng(seed)
    scores = random.normal(size=(images, 5)).astype(np.float32)
    labels = random.integers(0, 5, images)
    right, lost = testing.judge(scores, labels)[0], testing.softmax_loss(scores, labels)[0]
    tester = _tester(scores, labels, _plan(batch), in_order=True)
    cycling = _tester(scores, labels, _plan(batch), cycled_images=images + more)
    round_and_round = [right[place % images] for place in range(images + more)]
    for _ in range(3):
        found = tester.run()
        assert (found["images"], found["counted"], found["correct"]) == (
            images,
            images,
            right.sum(),
        )
        assert found["loss"] == pytest.approx(lost / images)
        assert tester.right_answers == right_answers.pack_answers(right)
        comes_round = -(-images // batch) * batch % images == 0
        assert found["outputs"].keys() == ({"other"} if comes_round else set())
        both = cycling.run()
        assert both == found | {
            "cycled": sum(round_and_round) / (images + more),
            "cycled_images": images + more,
        }


@settings(max_examples=40)
@given(
    axis=st.sampled_from([1, -1, 2]),
    ignored=st.none() | st.integers(0, 2),
    seed=st.integers(0, 99),
    batch=st.integers(1, 7),
)
def test_each_pixel_of_each_image_counts_once(axis, ignored, seed, batch):
    random = np.random.default_rng(seed)
    scores = random.normal(size=(5, 3, 3, 3)).astype(np.float32)
    labels = random.integers(0, 3, (5, 1, 3, 3))
    plan = _plan(batch, axis=axis, ignore_label=ignored)
    right = lost = counted = 0
    for image, row, column in np.ndindex(5, 3, 3):
        label = int(labels[image, 0, row, column])
        if label == ignored:
            continue
        here = np.moveaxis(scores[image], axis % 4 - 1, -1)[row, column].astype(np.float64)
        right += int(here.argmax() == label)
        lost += float(np.log(np.exp(here).sum()) - here[label])
        counted += 1
    found = _tester(scores, labels, plan).run()
    assert (found["images"], found["counted"], found["correct"]) == (5, counted, right)
    assert found["loss"] == pytest.approx(lost / max(counted, 1), rel=1e-5)


def test_the_loss_is_divided_as_its_layer_says():
    random = np.random.default_rng(0)
    scores = random.normal(size=(6, 3, 2, 2)).astype(np.float32)
    labels = random.integers(0, 3, (6, 1, 2, 2))
    ways = ("VALID", "FULL", "BATCH_SIZE", "NONE")
    plans = {way: _plan(3, ignore_label=0, normalization=way) for way in ways}
    found = {way: _tester(scores, labels, plan).run()["loss"] for way, plan in plans.items()}
    divisors = {"VALID": (labels != 0).sum(), "FULL": 24, "BATCH_SIZE": 6, "NONE": 2}
    for way, divisor in divisors.items():
        assert found[way] * divisor == pytest.approx(found["FULL"] * 24)


def test_scores_that_are_not_finite_are_wrong_answers_and_said():
    scores = np.zeros((4, 2), np.float32)
    scores[:, 1], scores[2, 0] = 1, np.nan
    found = _tester(scores, np.ones(4, int), _plan(3)).run()
    assert (found["correct"], found["loss"], found["finite"]) == (3, None, False)


def test_where_labels_are_ignored_the_cycled_accuracy_is_the_mean_of_the_batches():
    random = np.random.default_rng(1)
    scores, labels = random.normal(size=(5, 3)).astype(np.float32), np.array([0, 1, 2, 0, 1])
    found = _tester(scores, labels, _plan(4, ignore_label=0), cycled_images=12).run()
    right = scores.argmax(1) == labels
    shares = []
    for at in (0, 4, 8):
        places = [place % 5 for place in range(at, at + 4) if labels[place % 5] != 0]
        shares.append(right[places].mean())
    assert found["cycled"] == pytest.approx(np.mean(shares))


def test_answers_by_image_are_told_where_each_image_has_one_label_and_its_place(monkeypatch):
    scores, labels = np.eye(4, 3, dtype=np.float32), np.array([0, 1, 0, 2])
    ordered = _tester(scores, labels, _plan(4), in_order=True)
    cases = {
        "in any order": _tester(scores, labels, _plan(4)),
        "ignored": _tester(scores, labels, _plan(4, ignore_label=2), in_order=True),
        "by pixel": _tester(np.ones((4, 3, 2, 2)), np.ones((4, 1, 2, 2)), _plan(2), in_order=True),
    }
    assert ordered.right_answers is None  # of no test yet
    for tester in (ordered, *cases.values()):
        tester.run()
    assert right_answers.unpack_answers(ordered.right_answers, 4).tolist() == [1, 1, 0, 0]
    assert {name: case.right_answers for name, case in cases.items()} == dict.fromkeys(cases)
    assert testing._MOST_IMAGES == right_answers.MOST_IMAGES
    monkeypatch.setattr(testing, "_MOST_IMAGES", 3)
    ordered.run()
    assert ordered.right_answers is None


def test_another_loss_is_the_mean_of_its_own_blob():
    labels = np.array([0, 1, 1])
    plan = _plan(1).model_copy(update={"loss": None, "loss_blob": "other"})
    assert _tester(np.eye(3, 2, dtype=np.float32), labels, plan).run()["loss"] == pytest.approx(
        2 / 3
    )


def test_labels_that_images_share_unevenly_are_refused():
    plan = _plan(2)
    net = _Net(np.zeros((3, 2), np.float32), np.zeros(3, int), 3)
    tester = testing.Tester(net, plan.model_dump(), 3)
    with pytest.raises(SystemExit, match="layer 'acc' compares 3 labels in a batch of 2 images"):
        tester.run()
