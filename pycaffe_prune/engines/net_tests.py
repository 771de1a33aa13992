"""How each of a solver's test nets is tested, and which of them a run is judged by."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from pycaffe_prune.engines.base import Event
from pycaffe_prune.engines.job import Job
from pycaffe_prune.engines.losses import weighted_losses
from pycaffe_prune.engines.net_data import records, replay_plan
from pycaffe_prune.engines.test_images import image_count, is_in_order, why_uncounted
from pycaffe_prune.engines.test_plan import (
    NetTest,
    TestPlan,
    judges_of,
    label_source,
    plan_test,
)
from pycaffe_prune.errors import FormatError
from pycaffe_prune.formats.caffe_pb2 import LayerParameter

__all__ = ["TestNet", "headline_of", "plan_tests", "untested_warnings"]


@dataclass(frozen=True)
class TestNet:
    """One test net of a solver."""

    __test__ = False  # pytest: not a test class

    name: str
    """Empty where it is the only one."""
    layers: Sequence[LayerParameter]
    """Those of its state, with absolute paths."""
    batches: int
    """Its ``test_iter``."""


def plan_tests(
    nets: Sequence[TestNet], train: Sequence[LayerParameter], wanted: str | None = None
) -> tuple[NetTest, ...]:
    """Choose how each test net is tested.

    Args:
        nets: The test nets, in Caffe's order.
        train: The layers of the TRAIN net.
        wanted: The Accuracy layer, or loss, to judge by; of several nets one has to have it.

    Raises:
        FormatError: None of them has it.
        SurgeryError: A layer's ``loss_weight`` are not one for each top.
    """
    judges = [judges_of(net.layers) for net in nets]
    if wanted is not None and not any(wanted in there for there in judges):
        listed = ", ".join(dict.fromkeys(name for there in judges for name in there))
        raise FormatError(
            f"the TEST net has no Accuracy or SoftmaxWithLoss layer '{wanted}' to judge by; there "
            f"are: {listed or 'none'}"
        )
    return tuple(
        _plan(net, plan_test(net.layers, wanted if wanted in there else None, train))
        for net, there in zip(nets, judges, strict=True)
    )


def headline_of(tests: Sequence[NetTest], wanted: str | None = None) -> int | None:
    """Return the number of the test net whose score a run is judged by.

    The first one that has the layer ``wanted``; without one, the first whose answers are counted.
    None: no answers are counted.
    """
    return next(
        (
            number
            for number, test in enumerate(tests)
            if test.plan is not None and wanted in (None, test.plan.layer)
        ),
        None,
    )


def untested_warnings(job: Job) -> Iterator[Event]:
    """Yield a warning for each test that the solver asks for and that is not made, or not counted.

    Nets that judge no answers have none to count, and no warning.
    """
    for test in job.tests:
        of = f" of {test.name}" if test.name else ""
        if test.untested is not None:
            message = f"no test{of} will be made: the net {test.untested}"
        elif test.uncounted is not None:
            message = (
                f"each test{of} tells the means of its outputs over {test.batches} batches, as "
                f"Caffe does, and counts no answers: the net {test.uncounted}"
            )
        else:
            continue
        yield Event(event="warning", message=message)


def _plan(net: TestNet, plan: TestPlan | None) -> NetTest:
    uncounted = why_uncounted(net.layers, plan) if plan is not None else None
    counted = plan if uncounted is None else None
    source = label_source(net.layers, counted) if counted is not None else None
    return NetTest(
        name=net.name,
        plan=counted,
        images=image_count(source) if source else 0,
        cycled_images=_cycled(net.batches, source) if source else 0,
        in_order=source is not None and is_in_order(source),
        batches=net.batches,
        losses=tuple(weighted_losses(net.layers)),
        replay=tuple(replay_plan(layer for layer in net.layers if not layer.bottom)),
        uncounted=uncounted,
        untested=_why_untested(net, counted),
    )


def _cycled(batches: int, source: LayerParameter) -> int:
    """Images of Caffe's own test where they are more than there are; 0: no image comes again."""
    if source.type != "Data":
        return 0  # others may begin anywhere
    count = batches * source.data_param.batch_size
    return count if count > records(source) else 0


def _why_untested(net: TestNet, plan: TestPlan | None) -> str | None:
    for layer in net.layers:
        where = f"has a layer '{layer.name}' ({layer.type}) in its TEST phase"
        if layer.type == "MemoryData":
            return (
                f"{where}, which only a program feeds; bring its data with a Data, ImageData or "
                "HDF5Data layer"
            )
        if layer.type == "DummyData" and _is_drawn(layer):
            return (
                f"{where} that draws its data at random, which a run that is stopped and goes on "
                "would draw otherwise; choose a constant data_filler"
            )
    if plan is None and net.batches < 1:
        return f"has {net.batches} test_iter, so that a test is of no batch; give 1 or more"
    return None


def _is_drawn(layer: LayerParameter) -> bool:
    return any(filler.type != "constant" for filler in layer.dummy_data_param.data_filler)
