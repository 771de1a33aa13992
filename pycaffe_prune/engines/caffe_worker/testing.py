"""Accuracy and loss over a test set."""

import numpy as np


class Tester:
    """Accuracy and loss over exactly N test images, each counted once.

    Caffe's Data layer never rewinds, but its LMDB is a ring: any N images in a row are all N. So a
    test may begin wherever the last one stopped, and what is left of a batch is not counted.

    Caffe's own figure for a test of ``cycled_images`` from the first image on, round and round the
    ring, follows from the same answers.
    """

    def __init__(self, net, job):
        self.net = net
        self.images = job["test_images"]
        self.cycled_images = job.get("cycled_images", 0)
        self.scores, self.labels = job["scores_blob"], job["label_blob"]
        self._at = 0  # the image that the next test begins with

    def run(self):
        """Return a dict: images, correct, accuracy, loss (None unless finite), finite.

        And cycled (the accuracy) with cycled_images where the job asks for it.
        """
        start, seen, answers, loss, finite = self._at, 0, [], 0.0, True
        while seen < self.images:
            self.net.forward()
            labels = self.net.blobs[self.labels].data.reshape(-1).astype(np.int64)
            scores = self.net.blobs[self.scores].data.reshape(len(labels), -1)
            take = min(len(labels), self.images - seen)
            right, lost, sound = judge(scores[:take], labels[:take])
            answers.append(right)
            seen, loss, finite = seen + take, loss + lost, finite and sound
            self._at = (self._at + len(labels)) % self.images
        right = np.roll(np.concatenate(answers), start)  # by the images' order
        correct, mean = int(right.sum()), loss / seen
        found = {
            "images": seen,
            "correct": correct,
            "accuracy": correct / seen,
            "loss": mean if np.isfinite(mean) else None,
            "finite": bool(finite),
        }
        if self.cycled_images:
            whole, rest = divmod(self.cycled_images, self.images)
            cycled = whole * correct + int(right[:rest].sum())
            found.update(cycled=cycled / self.cycled_images, cycled_images=self.cycled_images)
        return found


def judge(scores, labels):
    """Tell which answers of one batch are right, and add up its losses.

    A row is right when no other score reaches the true one (ties lose, as in Caffe's Accuracy
    layer) and every score is finite: a NaN would count as right in Caffe. The loss is
    SoftmaxWithLoss's: -log of the softmax, at least FLT_MIN.
    """
    sound = np.isfinite(scores).all(axis=1)
    true = scores[np.arange(len(labels)), labels]
    right = ((scores >= true[:, None]).sum(axis=1) == 1) & sound
    if not sound.all():
        return right, float("nan"), False
    shifted = scores.astype(np.float64) - scores.max(axis=1, keepdims=True)
    log_p = shifted[np.arange(len(labels)), labels] - np.log(np.exp(shifted).sum(axis=1))
    return right, float(-np.maximum(log_p, np.log(np.finfo(np.float32).tiny)).sum()), True
