"""What is said of a test's outputs: as Caffe says it."""

from pycaffe_prune.cli.test_lines import output_lines
from pycaffe_prune.engines.base import TestMeans


def test_each_output_is_told_with_what_it_adds_to_the_loss() -> None:
    test = TestMeans(
        iteration=5,
        test_net_name="test net #1 (b)",
        finite=False,
        batches=3,
        outputs={"loss": (2.5,), "two": (1.0, 2.0), "acc": (0.5,), "bad": (None, 1.0)},
    )
    assert list(output_lines(test, {"loss": 0.3, "two": 2.0, "bad": 1.0})) == [
        "output loss of test net #1 (b): 2.5 (* 0.3 = 0.75 loss)",
        "output two of test net #1 (b): 1 2 (* 2 = 6 loss)",
        "output acc of test net #1 (b): 0.5",
        "output bad of test net #1 (b): not finite 1 (* 1)",
    ]
    assert next(output_lines(test.model_copy(update={"test_net_name": ""}), {})) == (
        "output loss: 2.5"
    )
