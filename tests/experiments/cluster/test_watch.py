"""What is waited for is said after ten seconds, and each minute."""

from itertools import pairwise

from hypothesis import given
from hypothesis import strategies as st

from pycaffe_prune.experiments.cluster.watch import Patience


class Clock:
    """A clock that stands still."""

    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


def test_a_lack_is_told_after_ten_seconds_and_each_minute_from_its_beginning():
    clock, said = Clock(), []
    patience = Patience(said.append, clock)
    for second in range(200):
        clock.now = 1000.0 + second
        patience.look("no worker")
    assert said == [
        "no worker for 10 seconds",
        "no worker for 1 minute",
        "no worker for 2 minutes",
        "no worker for 3 minutes",
    ]
    patience.look(None)
    for _ in range(10):
        patience.look("no worker")
        clock.now += 1
    assert len(said) == 4
    patience.look("no worker")
    assert said[4:] == ["no worker for 10 seconds"]


@given(steps=st.lists(st.tuples(st.floats(0, 30), st.booleans()), max_size=40))
def test_nothing_is_said_more_often_than_that(steps):
    clock, told = Clock(), []
    patience = Patience(lambda _: told.append(clock.now), clock)
    for seconds, lacks in steps:
        clock.now += seconds
        patience.look("a worker" if lacks else None)
    assert all(later - earlier > 9 for earlier, later in pairwise(told))
