"""A run folder at a URL: what was done there goes on anywhere, what is half there is not taken."""

from dataclasses import dataclass, replace

import pytest

pytest.importorskip("fsspec")

from pycaffe_prune.engines.base import Event, TestScore
from pycaffe_prune.errors import DataError, InterruptedRunError
from pycaffe_prune.experiments.paths import ExperimentFolder
from pycaffe_prune.experiments.stages import Context, Stage, StageOutput
from pycaffe_prune.experiments.store.files import AtStore, Fetched, Store, run_in_store
from pycaffe_prune.experiments.store.moving import moved
from pycaffe_prune.experiments.store.stage_lock import Stop

SCORE = TestScore(iteration=1, images=1, correct=1, accuracy=1, loss=0, finite=True)


class Counting(Stage):
    """Counts to 3 in its snapshots; the engine, a number, says after which one it is cut off."""

    kind = "counting"
    settings = {}  # noqa: RUF012  (Stage's, that never changes)
    label = "counting"

    def work(self, folder, engine, observe):
        snapshots = folder.training.snapshots
        snapshots.mkdir(parents=True, exist_ok=True)
        found = sorted(snapshots.glob("*.solverstate"))
        reached = int(found[-1].stem) if found else 0
        for number in range(reached + 1, 4):
            for ending in (".caffemodel", ".solverstate"):
                (snapshots / f"{number}{ending}").write_text(f"{number}")
                (snapshots / f"{number - 1}{ending}").unlink(missing_ok=True)
            observe(Event(event="snapshot", iteration=number))
            if number == engine:
                raise InterruptedRunError("cut off")
        folder.training.final_weights.write_text("3")
        return StageOutput(
            seed=1,
            kept=dict.fromkeys(self.context.layers, 1),
            before=SCORE,
            after=SCORE,
            iterations=3,
            seconds=0,
            versions={},
        )


@dataclass(frozen=True, eq=False)
class Needing(Counting):
    """Counts when another stage is done."""

    needed: Stage

    kind = "needing"
    label = "needing"

    @property
    def inputs(self):
        return (self.needed,)


@pytest.fixture
def stage(tmp_path):
    """A stage that is described on the machine that gives the command."""
    here = tmp_path / "here"
    (here / "data").mkdir(parents=True)
    for name in ("solver", "net", "data/data.mdb", "data/lock.mdb"):
        (here / name).write_text(name)
    context = Context(
        ExperimentFolder(here / "run"), here / "solver", here / "net", here / "data", (), "f"
    )
    return Counting(context, 3)


def test_a_stage_cut_off_on_one_machine_goes_on_from_its_snapshot_on_another(stage, tmp_path):
    store = Store((tmp_path / "store").as_uri())
    sent = moved(stage, AtStore(store))
    seen = []
    with pytest.raises(InterruptedRunError):
        run_in_store(sent, store, tmp_path / "one", 2, seen.append, Stop())
    train = tmp_path / "store" / "stages" / stage.folder.path.name / "train"
    assert sorted(path.name for path in train.rglob("*.*")) == ["2.caffemodel", "2.solverstate"]
    run_in_store(sent, store, tmp_path / "two", None, seen.append, Stop())
    assert [event.iteration for event in seen] == [1, 2, 3]
    assert sorted(path.name for path in train.rglob("*.*")) == ["final.caffemodel"]
    assert stage.output() is None
    store.fetch_output(stage)
    assert stage.output().iterations == 3


def test_a_stage_that_another_machine_finished_is_not_done_again(stage, tmp_path):
    store = Store((tmp_path / "store").as_uri())
    sent = moved(stage, AtStore(store))
    run_in_store(sent, store, tmp_path / "one", None, lambda _: None, Stop())
    seen = []
    run_in_store(sent, store, tmp_path / "two", None, seen.append, Stop())
    assert seen == []


def test_a_stage_is_refused_of_which_an_input_is_not_at_the_store(stage, tmp_path):
    store = Store((tmp_path / "store").as_uri())
    needing = Needing(stage.context, 3, stage)
    sent = moved(needing, AtStore(store))
    with pytest.raises(
        DataError, match=r"counting-\w+: stage needing needs it, and it is not there"
    ):
        run_in_store(sent, store, tmp_path / "one", None, lambda _: None, Stop())
    stage.run(None, lambda _: None, Stop())
    store.put_done(stage)
    assert run_in_store(sent, store, tmp_path / "one", None, lambda _: None, Stop()).iterations == 3


def test_inputs_are_here_as_long_as_a_stage_needs_them(stage, tmp_path):
    store, scratch = Store((tmp_path / "store").as_uri()), tmp_path / "scratch"
    stage.run(None, lambda _: None, Stop())
    store.put_done(stage)
    one, two = (moved(Needing(stage.context, 3 + n, stage), AtStore(store)) for n in (0, 1))
    here = scratch / "stages" / stage.folder.path.name

    def while_one_runs(event):
        assert here.is_dir()
        if event.iteration == 1:
            run_in_store(two, store, scratch, None, lambda _: None, Stop())
            assert here.is_dir()

    run_in_store(one, store, scratch, None, while_one_runs, Stop())
    assert list((scratch / "stages").iterdir()) == []


def test_a_stage_that_could_not_be_put_there_is_not_done_again(stage, tmp_path):
    store = Store((tmp_path / "store").as_uri())
    sent = moved(stage, AtStore(store))
    in_the_way = tmp_path / "store" / "stages"
    in_the_way.write_text("no folder")
    seen = []
    with pytest.raises(DataError):
        run_in_store(sent, store, tmp_path / "one", None, seen.append, Stop())
    in_the_way.unlink()
    assert len(seen) == 3
    run_in_store(sent, store, tmp_path / "one", None, seen.append, Stop())
    assert len(seen) == 3
    store.fetch_output(stage)
    assert stage.output().iterations == 3


def test_what_is_done_here_is_put_there_unless_its_weights_are_elsewhere(stage, tmp_path):
    one, two = (Store((tmp_path / name).as_uri()) for name in ("one", "two"))
    run_in_store(
        moved(stage, AtStore(one)), one, tmp_path / "scratch", None, lambda _: None, Stop()
    )
    one.fetch_output(stage)
    one.put_done(stage)
    with pytest.raises(DataError, match="name the store that has them, or remove that folder"):
        two.put_done(stage)


def test_a_stage_with_other_layers_than_those_at_the_store_takes_its_place(stage, tmp_path):
    store = Store((tmp_path / "store").as_uri())
    run_in_store(
        moved(stage, AtStore(store)), store, tmp_path / "one", None, lambda _: None, Stop()
    )
    other = replace(stage, context=replace(stage.context, layers=("ip1",)))
    store.fetch_output(other)
    assert other.output() is None
    run_in_store(
        moved(other, AtStore(store)), store, tmp_path / "two", None, lambda _: None, Stop()
    )
    store.fetch_output(other)
    assert other.output().kept == {"ip1": 1}


def test_data_is_put_there_once_and_is_fetched_only_if_it_is_whole(stage, tmp_path):
    store = Store((tmp_path / "store").as_uri())
    sent = moved(stage, AtStore(store)).context
    data = tmp_path / "store" / sent.data
    assert sorted(path.name for path in data.iterdir()) == ["data.mdb", "whole"]
    (data / "data.mdb").write_text("kept")
    assert moved(stage, AtStore(store)).context == sent
    assert (data / "data.mdb").read_text() == "kept"
    (stage.context.data / "data.mdb").write_text("other data")
    assert moved(stage, AtStore(store)).context.data != sent.data
    (data / "whole").unlink()
    with pytest.raises(DataError, match="is not whole; give the command again"):
        Fetched(store, tmp_path / "scratch").data(sent.data)


def test_a_file_there_is_whole_or_as_it_was(tmp_path):
    store, here = Store(f"file://{tmp_path}/store"), tmp_path / "here"
    here.mkdir()
    (here / "job.json").write_text("whole")
    store.put(here, "stage", ["job.json"])
    (here / "job.json").unlink()
    (here / "job.json").mkdir()  # cannot be read
    with pytest.raises(DataError, match=r"job\.json"):
        store.put(here, "stage", ["job.json"])
    there = tmp_path / "store/stage"
    assert [path.read_text() for path in there.iterdir()] == ["whole"]

    (there / ".job.partial-1-abc.json").write_text("who")  # of a machine that died
    assert store.names("stage") == {"job.json": 5}


def test_an_unknown_protocol_is_said(tmp_path):
    with pytest.raises(DataError, match="tape://reel: "):
        Store("tape://reel")
