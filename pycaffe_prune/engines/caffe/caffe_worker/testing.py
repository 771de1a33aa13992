"""Accuracy and loss over a test set, or the means of a test net's outputs."""

import base64
import zlib

import numpy as np

_FLT_MIN = np.finfo(np.float32).tiny
_MOST_VALUES = 100  # of an output blob that is reported
_MOST_IMAGES = 1 << 22  # whose answers fit a line of a log (`formats.right_answers`)


def make_tester(net, told):
    """Return what tests a net as one of the job's ``tests`` says; None: it is not tested.

    ``told`` is an `engines.test_plan.NetTest`.
    """
    if told["untested"] is not None:
        return None
    if told["plan"] is None:
        return MeansTester(net, told["batches"], told["losses"])
    return Tester(net, told["plan"], told["images"], told["cycled_images"], told["in_order"])


class MeansTester:
    """The means of a net's outputs over so many batches, as `Solver::Test` reports them.

    Caffe's data layers never rewind: a test begins wherever the last one stopped.
    """

    def __init__(self, net, batches, losses):
        self.net, self.batches, self.losses = net, batches, losses
        self.right_answers = None

    def run(self):
        """Return a dict: batches, loss, finite, outputs.

        ``loss`` is the mean of the net's loss (Caffe's "Test loss"), None where it is not finite or
        the net has none; ``finite`` tells whether all small outputs were.
        """
        outputs, losses = [], []
        for _ in range(self.batches):
            self.net.forward()
            outputs.append(small_outputs(self.net))
            losses.append(net_loss(self.net, self.losses))
        found = means(outputs)
        mean = float(np.mean(losses)) if self.losses else None
        return {
            "batches": self.batches,
            "loss": mean if mean is not None and np.isfinite(mean) else None,
            "finite": all(one is not None for values in found.values() for one in values),
            "outputs": found,
        }


class Tester:
    """Accuracy and loss over exactly N test images, each counted once.

    Caffe's Data layer never rewinds, but its LMDB is a ring: any N images in a row are all N. So a
    test may begin wherever the last one stopped, and what is left of a batch is not counted.

    Caffe's own figure for a test of ``cycled_images`` from the first image on, round and round the
    ring, follows from the same answers.

    What is judged, and how, is the ``plan`` (`engines.test_plan.TestPlan`). An image has one label,
    or one for each pixel: right answers and places are counted by image.

    ``right_answers`` tells of the last test which images were answered right, as
    `formats.right_answers` writes it; None where the images are not ``in_order``, so that nobody
    can tell which is which, or have more labels than one, or none.
    """

    def __init__(self, net, plan, images, cycled_images=0, in_order=False):
        self.net, self.plan, self.images = net, plan, images
        self.cycled_images, self.in_order = cycled_images, in_order
        self.right_answers = None
        self._at = 0  # the image that the next test begins with

    def run(self):
        """Return a dict: accuracy_name, images, counted, correct, accuracy, loss, finite, outputs.

        ``counted`` are the places with a label that is not ignored, ``loss`` is None where it is
        not finite, or the net has none; ``outputs`` are empty where the images are not a whole
        number of batches. And cycled (the accuracy) with cycled_images where the job
        asks for it.
        """
        start, seen, finite = self._at, 0, True
        rights, counts, loss, outputs = [], [], _Loss(self.plan), []
        while seen < self.images:
            self.net.forward()
            outputs.append(small_outputs(self.net))
            batch, right, counted, sound = self._answers()
            take = min(batch, self.images - seen)
            rights.append(right[:take])
            counts.append(counted[:take])
            loss.add(self.net, batch, take)
            finite = finite and sound[:take].all() and np.isfinite(loss.sum)
            seen += take
            self._at = (self._at + batch) % self.images
        right = np.roll(np.concatenate(rights), start)  # by the images' order
        counted = np.roll(np.concatenate(counts), start)
        correct, mean = int(right.sum()), loss.mean()
        found = {
            "accuracy_name": self.plan["layer"],
            "images": seen,
            "counted": int(counted.sum()),
            "correct": correct,
            "accuracy": correct / max(int(counted.sum()), 1),
            "loss": mean if mean is not None and np.isfinite(mean) else None,
            "finite": bool(finite),
            # Other batches each time otherwise, and others again in a run that was stopped.
            "outputs": {} if start or self._at else means(outputs),
        }
        of_each = self.in_order and (counted == 1).all() and seen <= _MOST_IMAGES
        self.right_answers = _packed(right) if of_each else None
        if self.cycled_images:
            cycled = _cycled(right, counted, self.cycled_images, batch)
            found.update(cycled=cycled, cycled_images=self.cycled_images)
        return found

    def _answers(self):
        """Of the last batch: images in it; right answers, places and finiteness of each image."""
        plan = self.plan
        scores, labels = places(self.net, plan["scores"], plan["labels"], plan["axis"])
        right, counted, sound = judge(scores, labels, plan["top_k"], plan["ignore_label"])
        batch = plan["batch"]
        if len(labels) % batch:
            raise SystemExit(
                "layer '%s' compares %d labels in a batch of %d images, which share them unevenly; "
                "bring a whole number of labels with each image"
                % (plan["layer"], len(labels), batch)
            )
        by_image = [each.reshape(batch, -1) for each in (right, counted, sound)]
        return (batch, by_image[0].sum(1), by_image[1].sum(1), by_image[2].all(1))


class _Loss:
    """The mean loss of a head over images, as its layer normalizes it."""

    def __init__(self, plan):
        self.plan, self.sum, self.divisor = plan, 0.0, 0.0

    def add(self, net, batch, take):
        """Add the first ``take`` images of a batch."""
        told = self.plan["loss"]
        if told is not None:
            scores, labels = places(net, told["scores"], told["labels"], told["axis"])
            here = len(labels) * take // batch
            lost, counted = softmax_loss(scores[:here], labels[:here], told["ignore_label"])
            outer = int(np.prod(net.blobs[told["scores"]].data.shape[: told["axis"]], dtype=int))
            self.sum += lost
            self.divisor += {
                "VALID": counted,
                "FULL": here,
                "BATCH_SIZE": outer * take / batch,
                "NONE": take / batch,
            }[told["normalization"]]
        elif self.plan["loss_blob"] is not None:
            self.sum += float(net.blobs[self.plan["loss_blob"]].data.sum()) * take
            self.divisor += take

    def mean(self):
        """Return the mean; None: the head has no loss."""
        if self.plan["loss"] is None and self.plan["loss_blob"] is None:
            return None
        return self.sum / max(self.divisor, 1e-30)


def net_loss(net, losses):
    """The last batch's loss as Caffe adds it up (Net::ForwardFromTo); None where nothing is one."""
    if not losses:
        return None
    return sum(weight * float(net.blobs[blob].data.sum()) for blob, weight in losses)


def small_outputs(net):
    """Return copies of the blobs that no layer reads, by name, those of images left out."""
    found = {name: net.blobs[name].data for name in net.outputs}
    return {
        name: data.reshape(-1).astype(np.float64)
        for name, data in found.items()
        if data.size <= _MOST_VALUES
    }


def means(outputs):
    """Return what `Solver::Test` reports of batches: each value's mean; not finite ones are None.

    A blob of as many values in each batch, that is: others have no mean.
    """
    found = {}
    for name, first in outputs[0].items():
        values = [batch[name] for batch in outputs if name in batch]
        if len(values) == len(outputs) and all(each.shape == first.shape for each in values):
            mean = np.mean(values, axis=0)
            found[name] = [float(one) if np.isfinite(one) else None for one in mean]
    return found


def places(net, scores, labels, axis):
    """Return scores (places, classes) and labels (places,) as Caffe's layers pair them."""
    scores = np.moveaxis(net.blobs[scores].data, axis, -1)
    labels = net.blobs[labels].data.reshape(-1).astype(np.int64)
    return scores.reshape(-1, scores.shape[-1]), labels


def judge(scores, labels, top_k=1, ignore_label=None):
    """Tell of each place whether its answer is right, whether it counts, whether it is finite.

    An answer is right when fewer than ``top_k`` other scores reach the true one (ties lose, as in
    `src/caffe/layers/accuracy_layer.cpp`) and every score is finite: a NaN would count as right in
    Caffe. A place with ``ignore_label`` does not count.

    Raises:
        SystemExit: A label names no class.
    """
    counted = np.ones(len(labels), bool) if ignore_label is None else labels != ignore_label
    true = _true_scores(scores, labels, counted)
    sound = np.isfinite(scores).all(axis=1)
    right = ((scores >= true[:, None]).sum(axis=1) <= top_k) & sound & counted
    return right, counted, sound


def softmax_loss(scores, labels, ignore_label=None):
    """Return SoftmaxWithLoss's sum over the places that count, and how many they are.

    A place loses -log of its softmax, at least FLT_MIN; the sum is NaN where a score is not finite.

    Raises:
        SystemExit: A label names no class.
    """
    if ignore_label is not None:
        scores, labels = scores[labels != ignore_label], labels[labels != ignore_label]
    if not np.isfinite(scores).all():
        return float("nan"), len(labels)
    true = _true_scores(scores, labels, np.ones(len(labels), bool))
    largest = scores.max(axis=1) if len(labels) else np.zeros(0)
    shifted = scores.astype(np.float64) - largest[:, None]
    log_p = true.astype(np.float64) - largest - np.log(np.exp(shifted).sum(axis=1))
    return float(-np.maximum(log_p, np.log(_FLT_MIN)).sum()), len(labels)


def _true_scores(scores, labels, counted):
    wrong = counted & ((labels < 0) | (labels >= scores.shape[1]))
    if wrong.any():
        raise SystemExit(
            "a label of the test data is %d, but there are scores of %d classes, 0 to %d; correct "
            "the labels, the number of classes, or ignore_label"
            % (labels[wrong][0], scores.shape[1], scores.shape[1] - 1)
        )
    return scores[np.arange(len(labels)), np.where(counted, labels, 0)]


def _packed(right):
    """Write one bit an image, as `formats.right_answers.pack_answers` does."""
    return base64.b64encode(zlib.compress(np.packbits(right > 0).tobytes())).decode("ascii")


def _cycled(right, counted, images, batch):
    """Caffe's accuracy over ``images`` round and round: the mean of those of its batches."""
    if (counted == counted[0]).all():
        whole, rest = divmod(images, len(right))
        correct = whole * int(right.sum()) + int(right[:rest].sum())
        return correct / max(images * int(counted[0]), 1)
    round_about = np.arange(images).reshape(-1, batch) % len(right)
    shares = right[round_about].sum(1) / np.maximum(counted[round_about].sum(1), 1)
    return float(shares.mean())
