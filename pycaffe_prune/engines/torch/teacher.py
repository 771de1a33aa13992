"""A teacher beside a net that trains: its scores, and what they add to loss and gradient."""

from pathlib import Path

from torch import Tensor

from pycaffe_prune.engines.distillation import DISTILLED, Distillation
from pycaffe_prune.engines.torch.net import Net
from pycaffe_prune.formats.axes import canonical_axis
from pycaffe_prune.formats.caffe_pb2 import TEST, NetParameter
from pycaffe_prune.net.graph import NetState

__all__ = ["Teacher", "soft_loss"]


def soft_loss(
    scores: Tensor, teacher: Tensor, temperature: float, axis: int
) -> tuple[Tensor, Tensor]:
    """Return T^2 * KL(teacher at T || student at T), and its gradient by the student's scores.

    Args:
        scores: The student's, any shape.
        teacher: The teacher's, same shape.
        temperature: T.
        axis: Of the classes.

    Returns:
        The mean over all places, 0-dim; and T * (q - p) / places, p and q being the probabilities
        of teacher and student at T.
    """
    places = scores.numel() // scores.shape[axis]
    log_q = (scores / temperature).log_softmax(axis)
    log_p = (teacher / temperature).log_softmax(axis)
    p = log_p.exp()
    loss = (p * (log_p - log_q)).sum() * (temperature**2 / places)
    return loss, (log_q.exp() - p) * (temperature / places)


class Teacher:
    """Adds a teacher's part to the loss of a student; the rest of the student's loss is scaled.

    Args:
        student: The net that is trained.
        net: The teacher's, with Input layers for its data.
        told: What of both goes together, and how.

    Raises:
        EngineError: A layer's type is not known.
        SurgeryError: The teacher's weights do not fit.
    """

    def __init__(self, student: Net, net: NetParameter, told: Distillation) -> None:
        self._student, self._told = student, told
        self._net = Net(net, NetState(TEST), student.device)
        self._net.copy_from(Path(told.weights))
        (step,) = (one for one in student.steps if one.layer.param.name == told.loss)
        self._slot = step.flow.bottoms[0]
        shape = step.layer.setup.bottoms[0]
        self._axis = canonical_axis(shape, step.layer.param.softmax_param.axis)
        (weight,) = step.loss_diffs.values()
        self._weight = weight * told.mix
        step.loss_diffs = {slot: diff * (1 - told.mix) for slot, diff in step.loss_diffs.items()}
        student.more_diffs = self.diffs

    def diffs(self) -> dict[int, Tensor]:
        """Return what is added to the gradient of the student's scores, after its forward pass."""
        for name in self._told.inputs:
            self._net.use_value(name, self._student.value(name))
        self._net.compute_forward()
        scores = self._student.values[self._slot]
        teacher = self._net.value(self._told.scores)
        loss, diff = soft_loss(scores, teacher, self._told.temperature, self._axis)
        self._student.more_losses[DISTILLED] = loss * self._weight
        return {self._slot: diff * self._weight}

    def close(self) -> None:
        """Let go of what the teacher holds."""
        self._net.close()
