"""A run that goes on from a snapshot says which hidden states are not in it."""

from pathlib import Path

import pytest

from pycaffe_prune.engines.base import Event
from pycaffe_prune.engines.run_folder import RunFolder
from pycaffe_prune.engines.state_warnings import with_state_warnings

NET = """
layer { name: "tanh" type: "TanH" bottom: "x" top: "x" }
layer { name: "lstm" type: "LSTM" bottom: "x" bottom: "cont" top: "lstm" }
layer { name: "rnn" type: "RNN" bottom: "x" bottom: "cont" top: "rnn" include { phase: TRAIN } }
layer { name: "tested" type: "RNN" bottom: "x" bottom: "cont" top: "t" include { phase: TEST } }
layer { name: "shown" type: "RNN" bottom: "x" bottom: "cont" bottom: "h" top: "y" top: "h1"
  recurrent_param { expose_hidden: true } }
"""


def told(folder: RunFolder, *kinds: str) -> list[str]:
    events = [Event(event=kind) for kind in kinds]  # type: ignore[arg-type]
    return [event.message or event.event for event in with_state_warnings(events, folder)]


@pytest.mark.parametrize("kind", ["restored", "resumed"])
def test_layers_that_remember_are_named_behind_the_start_from_a_snapshot(
    tmp_path: Path, kind: str
) -> None:
    folder = RunFolder(tmp_path)
    folder.net.write_text(NET)
    start, _, sentence, done = told(folder, "start", kind, "done")
    assert (start, done) == ("start", "done")
    assert "the hidden states of layers 'lstm', 'rnn' are not in Caffe's snapshots" in sentence
    assert told(folder, "start", "done") == ["start", "done"]
    folder.net.write_text(NET.splitlines()[1])
    assert told(folder, kind) == [kind]
