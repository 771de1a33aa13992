"""Caffe's learning rate policies, in Caffe's own arithmetic."""

import numpy as np

from pycaffe_prune.engines.job import SolverSettings
from pycaffe_prune.errors import FormatError

__all__ = ["RatePolicy"]

_POLICIES = ("fixed", "step", "exp", "inv", "multistep", "poly", "sigmoid")


class RatePolicy:
    """The learning rate of each update (`SGDSolver::GetLearningRate`, `sgd_solver.cpp`).

    Args:
        settings: The policy and its numbers.
        current_step: As in the solverstate that a run goes on from.

    Raises:
        FormatError: The policy is not known, or is ``step`` without a ``stepsize``.
    """

    def __init__(self, settings: SolverSettings, current_step: int = 0) -> None:
        if settings.lr_policy not in _POLICIES:
            raise FormatError(
                f"the solver's lr_policy '{settings.lr_policy}' is not known; use one of "
                f"{', '.join(_POLICIES)}"
            )
        if settings.lr_policy == "step" and settings.stepsize < 1:
            raise FormatError(
                f"the solver's lr_policy 'step' has stepsize {settings.stepsize}; state how many "
                "iterations a step takes"
            )
        self.current_step = current_step
        """Steps taken so far by the policies ``step`` and ``multistep``; kept in solverstates."""
        self._settings = settings
        self._base = np.float32(settings.base_lr)
        self._gamma = np.float32(settings.gamma)
        self._power = np.float32(settings.power)

    def rate(self, iteration: int) -> float:
        """Return the rate of the update that follows after ``iteration`` updates.

        To be called once for each update: under ``multistep`` one call takes at most one step,
        even when several are due.

        Returns:
            A float32 value, as ``solver.lr`` of pycaffe would tell it; infinite or no number where
            the policy's formula is.
        """
        settings, at, one = self._settings, np.float32(iteration), np.float32(1)
        # In float32, as Caffe: near the end of poly 1 - iter/max_iter differs in the fourth digit.
        with np.errstate(all="ignore"):
            match settings.lr_policy:
                case "fixed":
                    return float(self._base)
                case "step":
                    self.current_step = iteration // settings.stepsize
                    return self._falling(self.current_step)
                case "multistep":
                    self._step_if_due(iteration)
                    return self._falling(self.current_step)
                case "exp":
                    return self._falling(iteration)
                case "inv":
                    factor = np.power(one + self._gamma * at, -self._power)
                case "poly":
                    factor = np.power(one - at / np.float32(settings.max_iter), self._power)
                case _:
                    centre = np.float32(settings.stepsize)
                    factor = one / (one + np.exp(-self._gamma * (at - centre)))
            return float(self._base * factor)

    def _falling(self, times: int) -> float:
        # C++ takes the power of a float to an int as a double.
        return float(np.float32(np.float64(self._base) * np.power(np.float64(self._gamma), times)))

    def _step_if_due(self, iteration: int) -> None:
        values = self._settings.stepvalue
        if self.current_step < len(values) and iteration >= values[self.current_step]:
            self.current_step += 1
