"""Layers that go through time: LSTM and RNN; and LSTMUnit, one step of the former."""

from abc import abstractmethod
from collections.abc import Mapping, Sequence

import torch
from torch import Tensor

from pycaffe_prune.engines.torch.layers.base import Layer, LayerSetup, Saved
from pycaffe_prune.errors import EngineError

__all__ = ["LAYERS", "LSTM", "RNN", "LSTMUnit"]

_Diffs = Sequence[Tensor | None]


class _Recurrent(Layer):
    """What LSTM and RNN have in common (`src/caffe/layers/recurrent_layer.cpp`).

    Bottoms: T x N x ... values; T x N marks, 0 where a sequence begins and 1 where it goes on;
    maybe N x ... values that every step sees; with ``expose_hidden`` the states to begin with.
    Without it a pass begins with the states that the last one left, in tests too, and the first
    with zeros. No gradient goes to states or comes from them.

    ``debug_info`` only prints, in Caffe.

    The input products of all steps are one product, and so are the gradients of all weights; only
    what a step needs of the one before is computed step by step.
    """

    remembers = True
    state_count: int
    last_blobs: int
    """How many blobs come after the hidden weights."""

    def __init__(self, setup: LayerSetup) -> None:
        super().__init__(setup)
        settings = setup.param.recurrent_param
        self.steps, self.streams = setup.bottoms[1]
        self.outputs = settings.num_output
        self.exposes = settings.expose_hidden
        exposed = self.state_count if self.exposes else 0
        self.has_static = len(setup.bottoms) > 2 + exposed

    def follow(self, before: Layer) -> None:
        """Go on with the memory of the states where the batch has another number of streams.

        Each is flat, as long as that of the largest batch so far. As in Caffe's blobs values stay
        where they are in memory, and are gone when a blob grows beyond what it ever was.

        Raises:
            EngineError: The number of time steps is another.
        """
        if not isinstance(before, _Recurrent):
            return
        if before.steps != self.steps:
            raise EngineError(
                f"layer '{self.param.name}' ({self.param.type}) was made for {before.steps} time "
                f"steps and its bottom has {self.steps} now; Caffe's does not follow: make the net "
                "anew"
            )
        count = self.streams * self.outputs
        self.states = [
            state if state.numel() >= count else state.new_zeros(count) for state in before.states
        ]

    def forward(self, bottoms: Sequence[Tensor], params: Sequence[Tensor]) -> tuple[Tensor, ...]:
        """Compute the tops; the states stay what they were."""
        return self._pass(bottoms, params)[0]

    def forward_saving(
        self, bottoms: Sequence[Tensor], params: Sequence[Tensor]
    ) -> tuple[tuple[Tensor, ...], Saved]:
        """Compute the tops, and leave the states to the next pass."""
        tops, states, kept = self._pass(bottoms, params)
        if not self.exposes:
            if not self.states:
                self.states = [state.new_zeros(state.numel()) for state in states]
            for memory, state in zip(self.states, states, strict=True):
                memory[: state.numel()].copy_(state.reshape(-1))
        return tops, (*bottoms[: 3 if self.has_static else 2], *params, *kept)

    def backward(
        self,
        saved: Saved,
        top_diffs: Sequence[Tensor | None],
        propagate: Sequence[bool],
        param_diffs: Sequence[Tensor | None],
    ) -> list[Tensor | None]:
        """Return the gradients of values and static values; see `Layer.backward`.

        Raises:
            EngineError: A gradient of the marks is wanted.
        """
        _require_no_way_to_marks(self, propagate, 1)
        found: list[Tensor | None] = [None] * len(propagate)
        if top_diffs[0] is None:
            return found
        inputs = 3 if self.has_static else 2
        count = len(param_diffs)
        bottoms, params = saved[:inputs], saved[inputs : inputs + count]
        kept, last = saved[inputs + count :], count - self.last_blobs
        marks = bottoms[1].unsqueeze(2)
        diffs = self._back_in_time(
            top_diffs[0], marks, params[last - 1 :], kept, param_diffs[last:]
        )
        rows = diffs.reshape(-1, diffs.shape[2])
        if param_diffs[last - 1] is not None:
            read = torch.stack(list(kept[: self.steps])).view(-1, self.outputs)
            _add_product(param_diffs[last - 1], rows, read)
        _add_product(param_diffs[0], rows, bottoms[0].reshape(len(rows), -1))
        if param_diffs[1] is not None:
            param_diffs[1].add_(rows.sum(0))
        if propagate[0]:
            found[0] = (rows @ params[0]).view(self.setup.bottoms[0])
        if self.has_static:
            each = diffs.sum(0)
            _add_product(param_diffs[2], each, bottoms[2].reshape(self.streams, -1))
            if propagate[2]:
                found[2] = (each @ params[2]).view(self.setup.bottoms[2])
        return found

    def _pass(
        self, bottoms: Sequence[Tensor], params: Sequence[Tensor]
    ) -> tuple[tuple[Tensor, ...], list[Tensor], list[Tensor]]:
        """Return tops, states (N x D each), and what going back needs.

        What is kept begins with what each step reads of the last one's hidden state.
        """
        places, marks = self.steps * self.streams, bottoms[1].detach().unsqueeze(2)
        sums = torch.addmm(params[1], bottoms[0].reshape(places, -1), params[0].t())
        sums = sums.view(self.steps, self.streams, -1)
        if self.has_static:
            sums = sums + bottoms[2].reshape(self.streams, -1) @ params[2].t()
        last = len(params) - self.last_blobs
        tops, states, kept = self._in_time(sums, marks, params[last - 1 :], self._begin(bottoms))
        if self.exposes:
            tops = (*tops, *(state.detach().unsqueeze(0) for state in states))
        return tops, states, kept

    def _begin(self, bottoms: Sequence[Tensor]) -> list[Tensor]:
        shape = (self.streams, self.outputs)
        if self.exposes:
            return [state.detach().view(shape) for state in bottoms[-self.state_count :]]
        if not self.states:
            return [bottoms[0].new_zeros(shape)] * self.state_count
        count = self.streams * self.outputs
        # Copies: going back needs them when the memory holds the states of the next pass.
        return [state[:count].clone().view(shape) for state in self.states]

    @abstractmethod
    def _in_time(
        self, sums: Tensor, marks: Tensor, params: Sequence[Tensor], states: Sequence[Tensor]
    ) -> tuple[tuple[Tensor, ...], list[Tensor], list[Tensor]]:
        """Go through the steps.

        Args:
            sums: (T, N, rows): what the inputs add to each step.
            marks: (T, N, 1).
            params: The hidden weights and all blobs after them.
            states: (N, D) each.
        """

    @abstractmethod
    def _back_in_time(
        self,
        top_diff: Tensor,
        marks: Tensor,
        params: Sequence[Tensor],
        kept: Sequence[Tensor],
        last_diffs: _Diffs,
    ) -> Tensor:
        """Return the gradients of the sums, (T, N, rows); add those of the last blobs."""


class LSTM(_Recurrent):
    """A unit of four gates i, f, o and g in this order (`src/caffe/layers/lstm_layer.cpp`).

    Its blobs: weights of the input (4D x inputs), bias, weights of the static input, weights of the
    hidden state (4D x D). At marks other than 0 and 1 the gradient is the right one, as in Caffe's
    code for GPUs; that for CPUs takes f times the mark for f.
    """

    state_count = 2
    last_blobs = 0

    def _in_time(
        self, sums: Tensor, marks: Tensor, params: Sequence[Tensor], states: Sequence[Tensor]
    ) -> tuple[tuple[Tensor, ...], list[Tensor], list[Tensor]]:
        hidden, cell = states
        weight, outputs = params[0].t(), self.outputs
        made, read, gates, begun, cells, ends = [], [], [], [], [], []
        for step, mark in zip(sums.unbind(), marks.unbind(), strict=True):
            read.append(hidden * mark)
            both = torch.addmm(step, read[-1], weight)
            gates.append(both[:, : 3 * outputs].sigmoid())
            begun.append(both[:, 3 * outputs :].tanh())
            cells.append(cell)
            let_in, kept, let_out = gates[-1].chunk(3, 1)
            cell = torch.addcmul(let_in * begun[-1], kept * mark, cell)
            ends.append(cell.tanh())
            hidden = let_out * ends[-1]
            made.append(hidden)
        return (torch.stack(made),), [hidden, cell], [*read, *gates, *begun, *cells, *ends]

    def _back_in_time(
        self,
        top_diff: Tensor,
        marks: Tensor,
        params: Sequence[Tensor],
        kept: Sequence[Tensor],
        last_diffs: _Diffs,
    ) -> Tensor:
        steps, weight = self.steps, params[0]
        gates, begun, cells, ends = (
            torch.stack(list(kept[part * steps : (part + 1) * steps])) for part in range(1, 5)
        )
        let_in, forget, let_out = gates.chunk(3, 2)
        slopes = gates - gates.square()
        # How each gate's sum moves the cell; o moves the output alone.
        ways = torch.stack((begun, cells * marks, ends, let_in), 2)
        ways[:, :, :3].mul_(slopes.view(steps, self.streams, 3, -1))
        ways[:, :, 3].mul_(1 - begun.square())
        out_of_cell = let_out * (1 - ends.square())
        forget = forget * marks
        diffs = torch.empty_like(ways)
        hidden_diff = cell_diff = ways.new_zeros(self.streams, self.outputs)
        for step in reversed(range(steps)):
            hidden_diff = hidden_diff + top_diff[step]
            cell_diff = torch.addcmul(cell_diff, hidden_diff, out_of_cell[step])
            torch.mul(ways[step], cell_diff.unsqueeze(1), out=diffs[step])
            torch.mul(ways[step, :, 2], hidden_diff, out=diffs[step, :, 2])
            hidden_diff = (diffs[step].view(self.streams, -1) @ weight).mul_(marks[step])
            cell_diff = cell_diff * forget[step]
        return diffs.view(steps, self.streams, -1)


class RNN(_Recurrent):
    """A hidden state, and an output that reads it, both by TanH (`src/caffe/layers/rnn_layer.cpp`).

    Its blobs: weights of the input (D x inputs), bias, weights of the static input, weights of the
    hidden state (D x D), weights (D x D) and bias of the output.
    """

    state_count = 1
    last_blobs = 2
    keeps_top = True

    def _in_time(
        self, sums: Tensor, marks: Tensor, params: Sequence[Tensor], states: Sequence[Tensor]
    ) -> tuple[tuple[Tensor, ...], list[Tensor], list[Tensor]]:
        (hidden,), weight = states, params[0].t()
        read, made = [], []
        for step, mark in zip(sums.unbind(), marks.unbind(), strict=True):
            read.append(hidden * mark)
            hidden = torch.addmm(step, read[-1], weight).tanh()
            made.append(hidden)
        every = torch.stack(made)
        rows = every.view(-1, self.outputs)
        top = torch.addmm(params[2], rows, params[1].t()).tanh().view(every.shape)
        return (top,), [hidden], [*read, every, top]

    def _back_in_time(
        self,
        top_diff: Tensor,
        marks: Tensor,
        params: Sequence[Tensor],
        kept: Sequence[Tensor],
        last_diffs: _Diffs,
    ) -> Tensor:
        hidden_weight, weight, _ = params
        every, top = kept[self.steps :]
        out = (top_diff * (1 - top.square())).view(-1, self.outputs)
        _add_product(last_diffs[0], out, every.view(-1, self.outputs))
        if last_diffs[1] is not None:
            last_diffs[1].add_(out.sum(0))
        coming, slopes = (out @ weight).view(every.shape), 1 - every.square()
        diffs = torch.empty_like(every)
        hidden_diff = every.new_zeros(self.streams, self.outputs)
        for step in reversed(range(self.steps)):
            torch.mul(hidden_diff + coming[step], slopes[step], out=diffs[step])
            hidden_diff = (diffs[step] @ hidden_weight).mul_(marks[step])
        return diffs


def _add_product(target: Tensor | None, rows: Tensor, inputs: Tensor) -> None:
    """Add the gradient of weights, where one is wanted."""
    if target is not None:
        target.addmm_(rows.t(), inputs)


def _require_no_way_to_marks(layer: Layer, propagate: Sequence[bool], number: int) -> None:
    if propagate[number]:
        raise EngineError(
            f"layer '{layer.param.name}' ({layer.param.type}): its bottom "
            f"'{layer.param.bottom[number]}' tells where sequences go on, and depends on something "
            "that learns; no gradient goes back to it, and Caffe stops there: say propagate_down: "
            "false for it"
        )


class LSTMUnit(Layer):
    """One step of an LSTM from its gates' sums (`src/caffe/layers/lstm_unit_layer.cpp`).

    Bottoms: the cell, 1 x N x D; the sums of i, f, o and g, 1 x N x 4D; the marks, 1 x N, which
    take no gradient. Tops: the cell and the output.
    """

    def forward(self, bottoms: Sequence[Tensor], params: Sequence[Tensor]) -> tuple[Tensor, ...]:
        """Compute the tops; see `Layer.forward`."""
        cell, sums, marks = bottoms
        let_in, forget, let_out, begun = sums.chunk(4, 2)
        kept = forget.sigmoid() * marks.detach().unsqueeze(2)
        made = kept * cell + let_in.sigmoid() * begun.tanh()
        return made, let_out.sigmoid() * made.tanh()

    def backward(
        self,
        saved: Saved,
        top_diffs: Sequence[Tensor | None],
        propagate: Sequence[bool],
        param_diffs: Sequence[Tensor | None],
    ) -> list[Tensor | None]:
        """Return the gradients of cell and sums; see `Layer.backward`.

        Raises:
            EngineError: A gradient of the marks is wanted.
        """
        _require_no_way_to_marks(self, propagate, 2)
        return super().backward(saved, top_diffs, propagate, param_diffs)


LAYERS: Mapping[str, type[Layer]] = {"LSTM": LSTM, "LSTMUnit": LSTMUnit, "RNN": RNN}
"""Layers by Caffe's names of their types."""
