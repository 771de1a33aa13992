"""``caffe-prune reproduce --measure``: the nets of a result, timed in the real Caffe."""

from collections.abc import Callable

from pycaffe_prune.convert.deploy import to_deploy
from pycaffe_prune.engines.caffe.engine import CaffeEngine
from pycaffe_prune.engines.data_shapes import data_shapes
from pycaffe_prune.errors import PruneError
from pycaffe_prune.experiments.machine import this_machine
from pycaffe_prune.experiments.plan import Plan, final_stages
from pycaffe_prune.experiments.result import ExperimentResult, Point, Speed
from pycaffe_prune.experiments.stages import Stage
from pycaffe_prune.formats.caffe_pb2 import TEST, NetParameter
from pycaffe_prune.formats.caffemodel import Caffemodel, read_caffemodel, write_caffemodel
from pycaffe_prune.formats.prototxt import read_net, write_prototxt
from pycaffe_prune.formats.temporary import temporary_folder
from pycaffe_prune.net.graph import NetState, layers_in_state
from pycaffe_prune.pruning.dead import delete_dead
from pycaffe_prune.reports.methods.worth import worth
from pycaffe_prune.reports.rows import parameter

__all__ = ["BATCH", "measured"]

BATCH = 64


def measured(
    result: ExperimentResult, plan: Plan, engine: CaffeEngine, tell: Callable[[str], None]
) -> ExperimentResult:
    """Return the result with the speeds of the nets that the report holds against each other.

    Of several seeds the first is measured: their nets are of nearly one size.

    Args:
        result: Of the plan, all of whose stages are done and have their files here.
        plan: The same.
        engine: The real Caffe.
        tell: Gets a line about each net.

    Raises:
        PruneError: A net or its weights are not there, or Caffe refuses them.
    """
    wanted = {(row.name, row.setting) for row in worth(result)}
    points = []
    for point, stage in zip(result.points, final_stages(plan), strict=True):
        key = point.method, "" if point.method == "baseline" else parameter(point)
        if point.selected and key in wanted:
            wanted.remove(key)
            speed = _speed(stage, engine)
            tell(f"{_called(result, point)}: {speed.one:.3f} ms, {speed.each:.3f} of {BATCH}")
            points.append(point.model_copy(update={"speed": speed}))
        else:
            points.append(point.model_copy(update={"speed": None}))
    return result.model_copy(update={"points": tuple(points)})


def _called(result: ExperimentResult, point: Point) -> str:
    return " ".join(filter(None, (result.title_of(point.method), point.setting.text)))


def _speed(stage: Stage, engine: CaffeEngine) -> Speed:
    training = stage.folder.training
    net, model = read_net(training.net), read_caffemodel(training.final_weights)
    shapes = data_shapes(layers_in_state(net, NetState.of(net, TEST)))
    net, model = _alive(net, model)
    with temporary_folder() as folder:
        deploy, weights = folder / "deploy.prototxt", folder / "alive.caffemodel"
        write_prototxt(deploy, to_deploy(net, shapes, model))
        write_caffemodel(weights, model)
        one, batch = engine.forward_times(deploy, weights, (1, BATCH))
    return Speed(one=one, each=batch / BATCH, batch=BATCH, cpu=this_machine().cpu)


def _alive(net: NetParameter, model: Caffemodel) -> tuple[NetParameter, Caffemodel]:
    try:
        alive = delete_dead(net, model)
    except PruneError:  # its dead units cannot be told; the result's `alive_problem` says why
        return net, model
    return alive.net, alive.model
