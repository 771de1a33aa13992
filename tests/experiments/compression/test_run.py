"""A compression does what is asked, chooses on held-out images alone, and goes on where it was."""

import json
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner

from data_prep.digits import build_digits
from pycaffe_prune.cli import cli
from pycaffe_prune.engines.contents import NOTES_ENDING
from pycaffe_prune.errors import PruneError
from pycaffe_prune.experiments.compression import run
from pycaffe_prune.experiments.compression.result import Answers, CompressionResult
from pycaffe_prune.formats.caffemodel import read_caffemodel
from pycaffe_prune.formats.weights import read_weights
from tests.experiments.conftest import NET, SOLVER


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Data, a solver with its net, and trained weights."""
    folder = tmp_path_factory.mktemp("compress")
    (folder / "net.prototxt").write_text(NET)
    (folder / "solver.prototxt").write_text(SOLVER)
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        build_digits(Path("data"))
        invoke("train", "--solver", "solver.prototxt", "--out", "base", "--max-iter", "300")
    return folder


@pytest.fixture
def trained(folder: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The trained weights; few settings are tried."""
    monkeypatch.chdir(folder)
    monkeypatch.setattr(run, "KEPT", (0.5, 0.2))
    monkeypatch.setattr(run, "_SHARES", (run.Shares(6, 4), run.Shares(4, 2)))
    monkeypatch.setattr(run, "_USUAL", run.Shares(6, 4))
    return folder / "base/final.caffemodel"


def invoke(command: str, *options: str) -> None:
    data = ["--data", "data", "--engine", "torch"]
    done = CliRunner().invoke(cli, [command, *options, *data], catch_exceptions=False)
    assert done.exit_code == 0, done.output


def compressed(weights: Path, *options: str) -> None:
    usual = ("--solver", "solver.prototxt", "--hold-out", "300", "--max-iter", "150")
    invoke("compress", "--weights", str(weights), "--out", "small.cpz", *usual, *options)


def test_a_budget_of_points_is_kept_and_the_file_holds_what_was_judged(trained: Path) -> None:
    compressed(trained, "--budget", "5")
    folder = Path("small.cpz.run")
    result = CompressionResult.model_validate_json((folder / "compression.json").read_bytes())
    assert result.chosen in result.trials
    assert result.chosen.held_out.points_below(result.whole_held_out) <= 5
    assert result.whole_held_out.images == 300
    assert result.whole_test.images == result.compressed_test.images == 297
    assert result.chosen.size == Path("small.cpz").stat().st_size
    assert result.chosen.bits is not None

    final, file = read_caffemodel(folder / "final.caffemodel"), read_weights(Path("small.cpz"))
    for (key, blob), (same, other) in zip(final.blobs(), file.blobs(), strict=True):
        assert key == same
        assert blob.tobytes() == other.tobytes()
        if key[1] == 0:
            values = np.unique(blob[blob != 0])
            assert len(values) <= 1 << result.chosen.bits[key[0]]

    stages = {path: path.stat().st_mtime_ns for path in folder.glob("stages/*/stage.json")}
    Path("small.cpz").unlink()
    compressed(trained, "--budget", "5")  # nothing is trained again
    assert stages == {path: path.stat().st_mtime_ns for path in folder.glob("stages/*/stage.json")}
    assert Path("small.cpz").stat().st_size == result.chosen.size


def test_a_size_that_is_asked_for_is_kept_or_refused(trained: Path) -> None:
    compressed(trained, "--times", "8")
    result = json.loads(Path("small.cpz.run/compression.json").read_bytes())
    assert 8 * Path("small.cpz").stat().st_size <= result["dense_bytes"]
    kept = {trial["kept"] for trial in result["trials"] if trial["bits"]}
    milder = [rate for rate in run.KEPT if rate > result["chosen"]["kept"]]
    assert set(milder) <= kept, "milder ones were tried and were too large"
    Path("small.cpz").unlink()
    with pytest.raises(PruneError, match="ask for less"):
        compressed(trained, "--times", "1000")
    assert not Path("small.cpz").exists()


def test_a_dry_run_writes_nothing(trained: Path) -> None:
    def there() -> set[Path]:  # but for what is noted beside data that were read
        found = trained.parents[1].rglob("*")
        return {path for path in found if not path.name.endswith(NOTES_ENDING)}

    before = there()
    compressed(trained, "--times", "8", "--run", "dry", "--dry-run")
    assert there() == before


def test_what_the_held_out_images_cannot_tell_is_said() -> None:
    def doubts(right: int, images: int, test: int, points: float | None) -> list[str]:
        whole, others = Answers(correct=right, images=images), Answers(correct=test, images=1000)
        return list(run._doubts(whole, others, points))

    assert doubts(9000, 10_000, 900, 1) == []
    assert doubts(9000, 10_000, 900, None) == []
    (few,) = doubts(90, 100, 900, 1)
    assert "known to 6.00 points" in few
    (known,) = doubts(9900, 10_000, 900, 1)
    assert "trained on the former" in known


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (("--solver", "solver.prototxt"), "one of --budget and --times"),
        (("--solver", "s", "--budget", "1", "--times", "2"), "one of --budget and --times"),
        (
            ("--solver", "s", "--data", "d", "--times", "2", "--hold-out", "9", "--held-out", "h"),
            "--hold-out and --held-out",
        ),
        (("--budget", "1"), "--budget is for a training"),
    ],
)
def test_options_that_do_not_go_together_are_refused(options: tuple[str, ...], said: str) -> None:
    done = CliRunner().invoke(cli, ["compress", "--weights", "w", "--out", "o", *options])
    assert done.exit_code == 2
    assert said in done.output
