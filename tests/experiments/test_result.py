"""Scores of result.json: what contradicts itself is refused."""

import numpy as np
import pytest
from pydantic import ValidationError

from pycaffe_prune.engines.base import TestScore
from pycaffe_prune.experiments.result import Score
from pycaffe_prune.formats.right_answers import pack_answers

RIGHT = np.arange(20) % 3 != 0
SCORE = {
    "accuracy": 0.65,
    "correct": 13,
    "images": 20,
    "loss": 0.5,
    "finite": True,
    "right_answers": pack_answers(RIGHT),
}


@pytest.mark.parametrize("model", [Score, TestScore])
@pytest.mark.parametrize(
    ("changed", "told"),
    [
        ({"correct": 12}, "the right answers are 13, but 12 were counted"),
        ({"images": 30}, "not those of 30 images"),
        ({"right_answers": "AAAA"}, "the right answers are damaged"),
        ({"right_answers": ""}, "the right answers are"),
    ],
)
def test_right_answers_are_those_that_were_counted(model, changed, told):
    more = {"iteration": 1} if model is TestScore else {}
    score = model.model_validate(SCORE | more)
    assert model.model_validate_json(score.model_dump_json()) == score
    assert model.model_validate({**SCORE, **more, "right_answers": None}).right_answers is None
    with pytest.raises(ValidationError, match=told):
        model.model_validate(SCORE | more | changed)
