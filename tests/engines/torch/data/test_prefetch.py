import threading

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from pycaffe_prune.engines.torch.data.base import Source
from pycaffe_prune.engines.torch.data.prefetch import Prefetch
from pycaffe_prune.errors import DataError
from pycaffe_prune.formats.axes import Shape

CPU = torch.device("cpu")


class Counting(Source):
    """Batch n holds n; at ``damage`` it fails."""

    def __init__(self, damage: int | None = None) -> None:
        self.batch, self.damage, self.closed = 0, damage, 0
        self.made: list[int] = []

    @property
    def shapes(self) -> tuple[Shape, ...]:
        return ((1,),)

    def next(self) -> tuple[Tensor, ...]:
        number = self.batch
        self.batch += 1
        if number == self.damage:
            raise DataError(f"batch {number} is damaged")
        self.made.append(number)
        return (torch.tensor([float(number)]),)

    def seek(self, batch: int) -> None:
        self.batch = batch

    def close(self) -> None:
        self.closed += 1


@settings(max_examples=50)
@given(
    ahead=st.integers(0, 5),
    moves=st.lists(st.one_of(st.none(), st.integers(0, 50)), max_size=20),
)
def test_batches_are_those_of_the_source_wherever_it_is_sent(
    ahead: int, moves: list[int | None]
) -> None:
    source, plain = Prefetch(Counting(), CPU, ahead), Counting()
    for move in moves:
        if move is None:
            assert source.next() == plain.next()
        else:
            source.seek(move)
            plain.seek(move)
    source.close()


def test_so_many_batches_are_made_ahead() -> None:
    inner = Counting()
    source = Prefetch(inner, CPU, 4)
    source.next()
    source._coming[-1].result()
    assert inner.made == [0, 1, 2, 3, 4]
    source.close()


def test_nothing_is_made_before_it_is_needed() -> None:
    inner = Counting()
    source = Prefetch(inner, CPU, 4)
    source.seek(3)
    source.close()
    assert inner.made == []


def test_an_error_comes_out_at_its_batch() -> None:
    source = Prefetch(Counting(damage=2), CPU, 4)
    assert [source.next()[0].item() for _ in range(2)] == [0, 1]
    with pytest.raises(DataError, match="batch 2 is damaged"):
        source.next()
    source.close()


@pytest.fixture
def threads_before() -> set[threading.Thread]:
    return set(threading.enumerate())


def test_closing_ends_the_thread_and_closes_the_source_once(
    threads_before: set[threading.Thread],
) -> None:
    inner = Counting()
    source = Prefetch(inner, CPU, 4)
    source.next()
    assert set(threading.enumerate()) > threads_before
    source.close()
    source.close()
    assert set(threading.enumerate()) == threads_before
    assert inner.closed == 1
