import pytest
from hypothesis import given
from hypothesis import strategies as st

from pycaffe_prune.engines.job import SolverSettings
from pycaffe_prune.engines.torch.rates import RatePolicy
from pycaffe_prune.errors import FormatError


def settings_of(policy: str, **changed: object) -> SolverSettings:
    numbers: dict[str, object] = {
        "base_lr": 0.5,
        "gamma": 0.5,
        "power": 0.75,
        "stepsize": 10,
        "stepvalue": (3, 3, 8),
        "max_iter": 100,
    }
    return SolverSettings.model_validate({"lr_policy": policy} | numbers | changed)


def test_multistep_takes_one_step_a_call_and_keeps_it() -> None:
    policy = RatePolicy(settings_of("multistep"))
    rates = [policy.rate(iteration) for iteration in range(10)]
    assert rates == [0.5] * 3 + [0.25] + [0.125] * 4 + [0.0625] * 2
    assert policy.current_step == 3


@given(stop=st.integers(0, 20), policy=st.sampled_from(["multistep", "step", "inv"]))
def test_a_run_goes_on_from_a_kept_step_as_if_never_interrupted(stop: int, policy: str) -> None:
    whole = RatePolicy(settings_of(policy))
    first = RatePolicy(settings_of(policy))
    before = [first.rate(iteration) for iteration in range(stop)]
    second = RatePolicy(settings_of(policy), first.current_step)
    after = [second.rate(iteration) for iteration in range(stop, 20)]
    assert before + after == [whole.rate(iteration) for iteration in range(max(stop, 20))]


def test_a_rate_of_no_meaning_is_told_as_such_and_raises_nothing() -> None:
    assert RatePolicy(settings_of("exp", gamma=10.0)).rate(1000) == float("inf")
    beyond = RatePolicy(settings_of("poly")).rate(101)
    assert beyond != beyond


def test_an_unknown_policy_is_refused_with_the_known_ones() -> None:
    with pytest.raises(FormatError, match="'plateau' is not known; use one of fixed, step, exp"):
        RatePolicy(settings_of("plateau"))
    with pytest.raises(FormatError, match="stepsize 0; state"):
        RatePolicy(settings_of("step", stepsize=0))
