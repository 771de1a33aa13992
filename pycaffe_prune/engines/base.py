"""The interface behind which training happens, and what it gives back."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal, Protocol, Self

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, ValidationError, model_validator

from pycaffe_prune.engines.job import EvaluationJob, Job, LoadedWeights, RestoredState
from pycaffe_prune.engines.run_folder import RunFolder
from pycaffe_prune.engines.run_log import json_lines, plain_line
from pycaffe_prune.errors import FormatError
from pycaffe_prune.formats.files import write_text
from pycaffe_prune.formats.right_answers import fault_of_answers

__all__ = [
    "Engine",
    "Event",
    "Observer",
    "TestMeans",
    "TestScore",
    "TrainResult",
    "losses_in_log",
    "read_result",
    "read_test",
    "seconds_in_log",
    "tests_in_log",
    "write_result",
]


class Event(BaseModel):
    """One thing that happened in a run: a line of ``log.jsonl``."""

    model_config = ConfigDict(frozen=True, extra="allow")

    event: Literal[
        "start",
        "anew",
        "weights",
        "restored",
        "warning",
        "resumed",
        "products",
        "progress",
        "test",
        "snapshot",
        "stopped",
        "done",
    ]
    iteration: int = 0
    message: str | None = None
    """What a warning says, what is used of a file of weights, what a run goes on from, what has to
    be made anew, how a masked layer is computed."""
    loss: float | None = None
    """Training loss of the last batch (progress), or mean test loss (test)."""
    lr: float | None = None
    images_per_second: float | None = None


Observer = Callable[[Event], None]
"""Called with every event while a run goes on."""


class _Test(BaseModel):
    """One test of one of a solver's test nets."""

    model_config = ConfigDict(frozen=True)

    iteration: int
    test_net: int = 0
    """The number of the test net, in Caffe's order."""
    test_net_name: str = ""
    """That number, and how the solver tells this test net from others; empty for an only one."""
    loss: float | None = None
    """The mean loss; None when it is not finite, or there is none."""
    finite: bool
    outputs: dict[str, tuple[float | None, ...]] = {}
    """Each small output blob of the TEST net, as `Solver::Test` reports it: the mean over the
    batches of this test. None stands for what is not finite."""


class TestMeans(_Test):
    """A test as Caffe makes it: means over the solver's ``test_iter`` batches, no answers counted.

    The loss is that of the whole net, weights included; ``finite`` tells of the outputs.
    """

    __test__ = False  # pytest: not a test class

    batches: int

    @property
    def told(self) -> str:
        """Net, batches and loss, for a sentence."""
        of = f" of {self.test_net_name}" if self.test_net_name else ""
        lost = "none" if self.finite else "not finite"
        loss = lost if self.loss is None else f"{self.loss:.6g}"
        return f"loss {loss}{of} (mean of {self.batches} batches)"


class TestScore(_Test):
    """A test over exactly ``images`` images, each counted once, or each of their pixels once.

    The loss is that of the judged head; ``finite`` tells of its scores. ``outputs`` are empty where
    the images are not a whole number of batches: each test would have others.
    """

    __test__ = False  # pytest: not a test class

    accuracy_name: str | None = None
    """The Accuracy layer whose answers these are, or the loss whose scores were judged."""
    images: int
    counted: int | None = None
    """Labels that are not ignored; None, as older versions wrote it: one for each image."""
    correct: int
    accuracy: float
    """Share of those, 0 to 1; places with a score that is not finite count as wrong."""
    cycled: float | None = None
    """Share of right answers that Caffe's own test would give: the solver's ``test_iter`` batches
    from the first image on, round and round. None: each image once, as above."""
    cycled_images: int | None = None
    """Images in that test, those that come again counted again."""
    right_answers: str | None = None
    """Which images were answered right (`formats.right_answers`), of the test after the last
    iteration only. None where an image has more labels than one, or none, or the order of the
    images is not that of their source; older versions wrote none."""

    @model_validator(mode="after")
    def _answers_as_counted(self) -> Self:
        if self.right_answers is not None:
            fault = fault_of_answers(self.right_answers, self.images, self.correct)
            if fault:
                raise ValueError(fault)
        return self

    @property
    def told(self) -> str:
        """Accuracy, counts and the name of the judged layer, for a sentence."""
        name = f" in '{self.accuracy_name}'" if self.accuracy_name else ""
        of = f" of {self.test_net_name}" if self.test_net_name else ""
        counted = self.images if self.counted is None else self.counted
        return f"accuracy {100 * self.accuracy:.2f} % ({self.correct} of {counted}){name}{of}"


class TrainResult(BaseModel):
    """The outcome of a finished training run (``result.json`` of its folder)."""

    model_config = ConfigDict(frozen=True)

    schema_version: Literal[1] = 1
    engine: str
    versions: dict[str, str]
    seed: int
    iterations: int
    tests: tuple[TestScore, ...]
    """Of the test net that the run is judged by, in order of iteration; empty when no answers are
    counted."""
    other_tests: tuple[TestScore, ...] = ()
    """Of the solver's other test nets, in order of iteration and number."""
    means: tuple[TestMeans, ...] = ()
    """Of the test nets in which no answers are counted, in order of iteration and number."""
    loss_weights: tuple[dict[str, float], ...] = ()
    """Of each test net the blobs that add to its loss, and by how much; older versions wrote none.
    """
    weights_sha256: str
    """SHA-256 of ``final.caffemodel``."""
    mask_sha256: str | None = None
    """SHA-256 of ``final.mask.h5``, where masks changed while it trained."""
    revived: int
    """Masked weights that are not zero: always 0."""
    seconds: float
    """Wall time of training, all resumed parts together."""
    loaded: tuple[LoadedWeights, ...] = ()
    """The files of weights that it began with, in order, and what was used of each."""
    new_layers: tuple[str, ...] = ()
    """Layers that began with their fillers because none of these files has them."""
    restored: RestoredState | None = None
    """The solverstate that it went on from."""
    trusted: bool = False
    """Whether its layers might run code and write, as `--trust` lets them."""

    @property
    def first_test(self) -> TestScore:
        """The test before the first iteration, or the first one that was made.

        Raises:
            FormatError: As `final_test`.
        """
        self._require_tests()
        return self.tests[0]

    @property
    def final_test(self) -> TestScore:
        """The test after the last iteration.

        Raises:
            FormatError: No answers were counted.
        """
        self._require_tests()
        return self.tests[-1]

    def _require_tests(self) -> None:
        if not self.tests:
            raise FormatError(
                "this run has no test that counts right answers: its solver has no test_iter, or "
                "its net no Accuracy or SoftmaxWithLoss whose labels a Data, ImageData or HDF5Data "
                "layer brings"
            )

    def weights_of_loss(self, test_net: int) -> dict[str, float]:
        """Return the blobs that add to the loss of a test net, with their weights."""
        return self.loss_weights[test_net] if self.loss_weights else {}

    @property
    def last_tests(self) -> tuple[TestScore | TestMeans, ...]:
        """Those of all test nets after the last iteration, in Caffe's order."""
        made: list[TestScore | TestMeans] = [*self.tests, *self.other_tests, *self.means]
        last = [test for test in made if test.iteration == self.iterations]
        return tuple(sorted(last, key=lambda test: test.test_net))


class Engine(Protocol):
    """Same job in, same files out, whatever does the work."""

    name: str

    def train(self, folder: RunFolder, job: Job, observe: Observer) -> TrainResult:
        """Run the job prepared in ``folder`` from its start or its last snapshot to the end.

        Raises:
            EngineError: The engine failed; the message carries its own sentence.
            InterruptedRunError: The run was stopped and left a snapshot.
        """
        ...

    def stop(self) -> None:
        """Ask all work in progress for an end, runs with a snapshot: InterruptedRunError there.

        For good: whatever is asked of the engine from now on raises that as well. May be called
        from a signal's handler, at any moment.
        """
        ...

    def evaluate(self, folder: RunFolder, job: EvaluationJob) -> Iterator[TestScore]:
        """Test each of the job's weights over its test images; yield the scores as they come.

        Raises:
            EngineError: The engine failed; the message carries its own sentence.
            InterruptedRunError: The engine was asked to stop; the scores so far are good.
        """
        ...

    def forward(
        self,
        net_path: Path,
        weights: Path,
        inputs: Mapping[str, NDArray[np.float32]],
        outputs: Sequence[str],
    ) -> list[NDArray[np.float32]]:
        """Run ``inputs`` (blob name to array) through a TEST net and return the blobs ``outputs``.

        Raises:
            EngineError: The engine refused the net, the weights or the inputs.
            InterruptedRunError: The engine was asked to stop.
        """
        ...

    def close(self) -> None:
        """End the processes that wait for more work, if there are any."""
        ...


def _log_lines(folder: RunFolder) -> Iterator[dict[str, Any]]:
    def check(line: Mapping[str, Any]) -> None:
        plain_line(line)
        if line["event"] == "test":
            read_test(line)

    return json_lines(folder.log, check)


def tests_in_log(folder: RunFolder, iterations: int) -> tuple[TestScore | TestMeans, ...]:
    """Return the tests of a run of so many iterations, in order of iteration and test net.

    The log may hold more: those of parts that were given up, when the run went on from an earlier
    snapshot or, asked for fewer iterations, began again.
    """
    tests: dict[tuple[int, int], TestScore | TestMeans] = {}
    for line in _log_lines(folder):
        at = line.get("iteration", 0)
        is_test = line.get("event") == "test"
        if line.get("event") == "resumed" or (is_test and at == 0):
            tests = {place: test for place, test in tests.items() if place[0] <= at}
        if is_test:
            tests[at, line.get("test_net", 0)] = read_test(line)
    return tuple(tests[place] for place in sorted(tests) if place[0] <= iterations)


def read_test(event: Mapping[str, object]) -> TestScore | TestMeans:
    """Return the test that a worker's event tells of, as a line of the log or a dict."""
    kind = TestMeans if "batches" in event else TestScore
    return kind.model_validate(event)


def losses_in_log(folder: RunFolder) -> dict[int, float]:
    """Return the displayed training losses of the run's log by iteration; the last of each."""
    return {
        line.get("iteration", 0): line["loss"]
        for line in _log_lines(folder)
        if line.get("event") == "progress" and line.get("loss") is not None
    }


def seconds_in_log(folder: RunFolder) -> float:
    """Return the wall time of a run's parts, each up to the last time that it logged."""
    total = part = 0.0
    for line in _log_lines(folder):
        if line.get("event") == "start":
            total, part = total + part, 0.0
        part = line.get("seconds", part)
    return total + part


def read_result(folder: RunFolder) -> TrainResult | None:
    """Return the run's result, or None when it has not finished.

    Raises:
        FormatError: The file is damaged.
    """
    if not folder.result.is_file():
        return None
    try:
        return TrainResult.model_validate_json(folder.result.read_bytes())
    except ValidationError as error:
        raise FormatError(f"{folder.result}: is damaged ({error}); remove the folder") from error


def write_result(folder: RunFolder, result: TrainResult) -> Path:
    """Write ``result.json``: from now on the run counts as done."""
    write_text(folder.result, result.model_dump_json(indent=2) + "\n")
    return folder.result
