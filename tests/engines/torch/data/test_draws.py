from hypothesis import given
from hypothesis import strategies as st

from pycaffe_prune.engines.torch.data.draws import Purpose, draws_for

PLACES = st.tuples(
    st.integers(0, 2**31), st.sampled_from(Purpose), st.integers(0, 2**40), st.integers(0, 9)
)


def first_numbers(place: tuple[int, Purpose, int, int]) -> list[int]:
    return draws_for(*place).integers(0, 2**62, 50).tolist()


@given(PLACES, PLACES)
def test_numbers_are_the_same_for_the_same_place_and_only_for_that(
    one: tuple[int, Purpose, int, int], other: tuple[int, Purpose, int, int]
) -> None:
    assert first_numbers(one) == first_numbers(one)
    assert bool(set(first_numbers(one)) & set(first_numbers(other))) == (one == other)
