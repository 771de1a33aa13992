"""What holds for the whole process: where nets compute, and the seed of what is drawn."""

import random

import torch

__all__ = ["MODES", "Modes"]


class Modes:
    """The state that `Caffe::Get()` of `src/caffe/common.cpp` keeps."""

    def __init__(self) -> None:
        self.gpu = False
        self.device_id = 0
        self.multiprocess = False
        """Told by scripts; it changes nothing."""
        self._draws = random.Random()  # noqa: S311 (numbers for fillers)

    @property
    def device(self) -> torch.device:
        """Where nets that are made now compute."""
        return torch.device("cuda", self.device_id) if self.gpu else torch.device("cpu")

    def set_random_seed(self, seed: int) -> None:
        """Begin the numbers that belong to a seed."""
        self._draws.seed(seed)

    def draw_seed(self) -> int:
        """Draw the seed of a net."""
        return self._draws.randrange(2**31)


MODES = Modes()
"""Those of this process."""
