"""Who does the stages of a sweep: child processes of this machine, or a Dask cluster."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from importlib.util import find_spec

import click

from pycaffe_prune.cli.options import engine_to_work_with, require_sense, say_remark
from pycaffe_prune.engines.choice import EngineWish
from pycaffe_prune.errors import EngineError
from pycaffe_prune.experiments.scheduler import StageObserver, run_stages
from pycaffe_prune.experiments.stages import Stage
from pycaffe_prune.experiments.store.stage_lock import Stop

__all__ = ["Crew", "crew_to_work_with"]


@dataclass(frozen=True)
class Crew:
    """Those that work at a sweep."""

    engine_name: str
    jobs: int
    """Stages, or packs of them, that they do at a time."""
    fetch: Callable[[Sequence[Stage]], None]
    """Brings here what is done elsewhere, so that it counts as done."""
    run: Callable[[Sequence[Stage], StageObserver], None]
    """Does all stages (see `experiments.scheduler.run_stages`)."""
    stop: Callable[[], None]
    """Asks all work in progress for a snapshot and an end."""


@contextmanager
def crew_to_work_with(
    wish: EngineWish, jobs: int, scheduler: str | None, store: str | None
) -> Iterator[Crew]:
    """Give those that do the stages, and end their processes after the work.

    Args:
        wish: The engine that is wished.
        jobs: Stages side by side on this machine, or packs of them where the wish says how many.
        scheduler: Address or scheduler file of a Dask cluster; None: this machine works.
        store: URL at which the cluster's machines share all files; None: they see the run folder.

    Raises:
        click.UsageError: The options contradict each other.
        EngineError: There is no such engine or no such cluster.
    """
    if scheduler is None:
        if store is not None:
            raise click.UsageError("--store goes with --scheduler: this machine has the run folder")
        with engine_to_work_with(wish) as engine:
            ending = Stop()
            # One pack more: it is prepared while the others are trained.
            stages_at_once = jobs if wish.at_once is None else wish.pack * (wish.at_once + 1)

            def stop() -> None:
                ending.asked = True  # first: a stage that is about to begin sees one of the two
                engine.stop()

            yield Crew(
                engine.name,
                jobs,
                lambda _: None,
                lambda stages, observe: run_stages(stages, engine, stages_at_once, observe, ending),
                stop,
            )
        return
    require_sense(wish)
    if find_spec("distributed") is None:
        raise EngineError(
            "--scheduler needs Dask; install it with: pip install 'pycaffe-prune[cluster]'"
        )
    # Here, not above: a sweep on one machine does without Dask.
    from pycaffe_prune.experiments.cluster.dask_crew import connected, run_stages_on_cluster
    from pycaffe_prune.experiments.store.files import fetch_outputs

    def fetch(stages: Sequence[Stage]) -> None:
        if store is not None:
            fetch_outputs(stages, store)

    with connected(scheduler, say_remark) as cluster:
        settled = cluster.settle(wish)
        yield Crew(
            settled.name,
            cluster.threads,
            fetch,
            lambda stages, observe: run_stages_on_cluster(stages, cluster, settled, observe, store),
            cluster.stop,
        )
