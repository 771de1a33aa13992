"""Results of experiments, made up: by hand and by Hypothesis."""

from collections.abc import Callable, Sequence

import pytest
from hypothesis import strategies as st

from pycaffe_prune.experiments.reproduce import BASELINE
from pycaffe_prune.experiments.result import (
    DataSet,
    ExperimentResult,
    LayerRate,
    Machine,
    Point,
    Round,
    Score,
    Setting,
)
from pycaffe_prune.methods.registry import methods

IMAGES = 10_000
WEIGHTS = {"ip1": 235_200, "ip2": 30_000, "ip3": 1_000}
TOTAL = sum(WEIGHTS.values())


def _score(correct: int, *, finite: bool = True, accuracy_name: str | None = None) -> Score:
    return Score(
        accuracy_name=accuracy_name,
        accuracy=correct / IMAGES,
        correct=correct,
        images=IMAGES,
        loss=0.1 if finite else None,
        finite=finite,
    )


def _kept(removed: int, units: dict[str, int]) -> dict[str, int]:
    """Weights left in each layer: as the units have it where that fits, else ip1's go first."""
    ip1, ip2 = units.get("ip1", 300), units.get("ip2", 100)
    shaped = {"ip1": 784 * ip1, "ip2": ip1 * ip2, "ip3": 10 * ip2}
    if TOTAL - removed == sum(shaped.values()):
        return shaped
    kept = {}
    for name, weights in WEIGHTS.items():
        kept[name] = weights - min(removed, weights)
        removed -= weights - kept[name]
    return kept


def make_point(
    method: str,
    removed: int,
    correct: int,
    *,
    alpha: float | None = None,
    units: dict[str, int] | None = None,
    seed: int = 1,
    selected: bool = True,
    rounds: int = 1,
    finite: bool = True,
    accuracy_name: str | None = None,
) -> Point:
    """A LeNet-300-100 with ``removed`` of its 266,200 FC weights gone."""
    kept = _kept(removed, units or {})
    layers = [
        LayerRate(layer=name, weights=weights, kept=kept[name], reduction=1 - kept[name] / weights)
        for name, weights in WEIGHTS.items()
    ]
    steps = [
        Round(
            round=number,
            layers=tuple(layers),
            reduction=removed / TOTAL,
            before=_score(correct // 2, accuracy_name=accuracy_name),
            after=_score(correct, finite=finite, accuracy_name=accuracy_name),
            iterations=5_000,
            seconds=4.5,
        )
        for number in range(1, rounds + 1)
    ]
    return Point(
        method=method,
        setting=setting_of(method, alpha, units),
        units=units,
        seed=seed,
        rounds=tuple(steps),
        selected=selected,
    )


def setting_of(method: str, alpha: float | None, units: dict[str, int] | None) -> Setting:
    """What tells a point apart, as its method says it."""
    if method == "baseline":
        return Setting(name=BASELINE.setting)
    settings = {name: bare.model_construct() for name, bare in methods().items()}
    return settings[method].tell(alpha, units)


def make_result(
    points: Sequence[Point],
    *,
    is_sample: bool = False,
    title: str = "LeNet-300-100",
    experiment: str = "lenet-300-100",
    **fields: object,
) -> ExperimentResult:
    """A result around the given points."""
    return ExperimentResult.model_validate(
        {
            "experiment": experiment,
            "preset": "quick",
            "title": title,
            "finished": "2024-05-01T12:00:00+00:00",
            "engine": "caffe",
            "versions": {"pycaffe-prune": "0.1.0", "caffe": "1.0.0", "numpy": "1.19.5"},
            "machine": Machine(cpu="A CPU", cores=2, system="Linux"),
            "jobs": 2,
            "wall_seconds": 754.2,
            "data": DataSet(
                name="digits" if is_sample else "mnist",
                is_sample=is_sample,
                train_images=1_500 if is_sample else 60_000,
                test_images=297 if is_sample else IMAGES,
                train_sha256="a" * 64,
                test_sha256="b" * 64,
            ),
            "settings": {"name": experiment, "connections": {"alphas": [0.9, 1.2], "rounds": 3}},
            "methods": (BASELINE, *(bare.model_construct().record for bare in methods().values())),
            "points": tuple(points),
            **fields,
        }
    )


def typical_points() -> list[Point]:
    """What a run of the paper's experiment looks like."""
    found = [
        make_point("baseline", 0, 9_790, seed=2),
        make_point("baseline", 0, 9_775, seed=1, selected=False),
    ]
    curve = {
        0.9: (213_000, 9_815),
        1.2: (239_800, 9_805),
        1.5: (252_900, 9_780),
        1.8: (259_500, 9_742),
        2.1: (262_700, 9_520),
        2.4: (264_600, 8_740),
    }
    found += [
        make_point("connections", removed, correct, alpha=alpha, seed=2, rounds=3)
        for alpha, (removed, correct) in curve.items()
    ]
    shapes = {60: (9_610, 9_640), 30: (9_480, 9_535), 15: (9_240, 9_305), 6: (8_450, 8_390)}
    for kept, (pruned, small) in shapes.items():
        removed = TOTAL - (784 * kept + 10 * kept + 100)
        units = {"ip1": kept, "ip2": 10}
        found.append(make_point("units", removed, pruned, units=units, seed=2))
        found.append(make_point("small", removed, small, units=units))
        found.append(make_point("small", removed, small - 7, units=units, seed=2, selected=False))
    return found


@st.composite
def made_results(draw: st.DrawFn) -> ExperimentResult:
    """Any result: any points of any method, with or without a baseline, sample or not."""
    shares = st.integers(0, TOTAL - 1)
    scores = st.integers(0, IMAGES)
    seeds = st.integers(0, 5)
    flags = st.booleans()
    units = st.fixed_dictionaries({"ip1": st.integers(1, 300), "ip2": st.integers(1, 100)})
    alphas = st.floats(0.1, 3, allow_nan=False).map(lambda alpha: round(alpha, 2))
    points = [
        make_point("baseline", 0, draw(scores), seed=draw(seeds), selected=draw(flags))
        for _ in range(draw(st.integers(0, 2)))
    ]
    points += [
        make_point("connections", draw(shares), draw(scores), alpha=draw(alphas))
        for _ in range(draw(st.integers(0, 5)))
    ]
    for method in ("units", "small"):
        for _ in range(draw(st.integers(0, 3))):
            removed, correct = draw(shares), draw(scores)
            points.append(
                make_point(
                    method, removed, correct, units=draw(units), selected=draw(flags), finite=False
                )
            )
    name = draw(st.sampled_from(["lenet-300-100", "lenet-5", "my-net"]))
    return make_result(points, experiment=name, is_sample=draw(flags))


@pytest.fixture(scope="session")
def point() -> Callable[..., Point]:
    return make_point


@pytest.fixture(scope="session")
def result_of() -> Callable[..., ExperimentResult]:
    return make_result


@pytest.fixture(scope="session")
def typical() -> ExperimentResult:
    return make_result(typical_points())


@pytest.fixture(scope="session")
def sample() -> ExperimentResult:
    return make_result(typical_points(), is_sample=True)


@pytest.fixture(scope="session")
def any_result() -> st.SearchStrategy[ExperimentResult]:
    return made_results()


@pytest.fixture(scope="session")
def with_net() -> ExperimentResult:
    """The typical result with a solver, and so a net, that the toolkit has."""
    return make_result(typical_points(), settings={"solver": "solvers/lenet_300_100.prototxt"})
