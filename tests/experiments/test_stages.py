"""A stage is done when the files that it left are as it recorded them."""

import json
from dataclasses import dataclass, field, replace

import numpy as np
import pytest

from pycaffe_prune.engines.base import TestScore
from pycaffe_prune.experiments.paths import ExperimentFolder
from pycaffe_prune.experiments.stages import Context, Stage, StageOutput
from pycaffe_prune.experiments.store.stage_lock import Stop
from pycaffe_prune.formats.caffe_pb2 import LayerParameter
from pycaffe_prune.formats.caffemodel import Caffemodel, Layer, write_caffemodel
from pycaffe_prune.formats.files import sha256_of
from pycaffe_prune.formats.mask import MaskFile, write_mask

SCORE = TestScore(iteration=1, images=1, correct=1, accuracy=1, loss=0, finite=True)
WEIGHTS = np.arange(6, dtype=np.float32).reshape(2, 3)


@dataclass(frozen=True, eq=False)
class Making(Stage):
    """A stage that leaves weights and a mask."""

    works: list[str] = field(default_factory=list)

    kind = "making"
    settings = {}  # noqa: RUF012  (Stage's, that never changes)
    label = "making"

    @property
    def files(self):
        return (*super().files, self.folder.mask)

    def work(self, folder, engine, observe):  # noqa: ARG002  (Stage's signature)
        self.works.append("done")
        model = Caffemodel((Layer(LayerParameter(name="ip", type="InnerProduct"), (WEIGHTS,)),))
        write_caffemodel(folder.training.final_weights, model)
        write_mask(folder.mask, MaskFile({("ip", 0): WEIGHTS > 1}, "0" * 64, "threshold"))
        return StageOutput(
            seed=1, kept={}, before=SCORE, after=SCORE, iterations=1, seconds=0, versions={}
        )


@pytest.fixture
def stage(tmp_path):
    context = Context(ExperimentFolder(tmp_path), tmp_path, tmp_path, tmp_path, (), "f")
    return Making(context, 1)


def run(stage) -> list[str]:
    """Run a stage; return what it says has to be made anew."""
    told = []
    stage.run(None, lambda event: told.append(event.message), Stop())
    return told


def cut(path):
    path.write_bytes(path.read_bytes()[:-5])


def remove(path):
    path.unlink()


def flip(path):
    content = bytearray(path.read_bytes())
    content[-1] ^= 1
    path.write_bytes(content)


@pytest.mark.parametrize("harm", [cut, remove, flip])
@pytest.mark.parametrize("name", ["train/final.caffemodel", "kept.mask.h5", "stage.json"])
def test_a_stage_whose_files_are_gone_or_damaged_is_done_anew_and_says_so(stage, harm, name):
    assert run(stage) == []
    path = stage.folder.path / name
    harm(path)
    assert stage.output() is None
    told = run(stage)
    if path == stage.folder.output and harm is remove:
        assert told == []  # as one that never ended
    else:
        assert len(told) == 1
        assert told[0].startswith(str(path))
        assert told[0].endswith("; the stage is done anew")
    assert stage.works == ["done", "done"]
    assert run(stage) == []
    assert stage.works == ["done", "done"]


def test_leftovers_of_a_kill_are_removed(stage):
    stage.folder.path.mkdir(parents=True)
    left = stage.folder.path / ".pruned.partial-abcdefgh.caffemodel"
    left.write_bytes(b"half")
    run(stage)
    assert not left.exists()


def _as_older_version(stage) -> None:
    told = json.loads(stage.folder.output.read_text())
    del told["files"], told["elsewhere"]
    stage.folder.output.write_text(json.dumps(told))


def test_a_training_of_which_a_dead_machine_left_half_is_begun_anew(stage):
    training = stage.folder.training
    training.snapshots.mkdir(parents=True)
    (training.snapshots / "snapshot_iter_5.solverstate").write_text("of another run")
    training.job.write_text('{"solver": "sol')
    (told,) = run(stage)
    assert told == f"{training.job} is damaged; the stage's training is begun anew"
    assert not training.job.exists()
    assert stage.output() is not None


def test_a_stage_of_an_older_version_counts_if_its_files_can_be_read_and_is_recorded(stage):
    run(stage)
    _as_older_version(stage)
    weights = stage.folder.training.final_weights
    assert stage.output() is not None
    told = json.loads(stage.folder.output.read_text())
    assert told["files"]["train/final.caffemodel"] == sha256_of(weights)
    assert run(stage) == []
    _as_older_version(stage)
    cut(stage.folder.mask)
    assert stage.output() is None
    assert stage.works == ["done"]
    assert len(run(stage)) == 1


def test_content_is_compared_always_where_that_is_wished(stage):
    run(stage)
    read = []

    def counted(path):
        read.append(path.name)
        return sha256_of(path)

    careful = replace(stage, context=replace(stage.context, checksum_of=counted))
    assert careful.output() is not None
    assert sorted(read) == ["final.caffemodel", "kept.mask.h5"]
