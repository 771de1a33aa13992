"""Every selection that reads files alone, on a CaffeNet-sized model (233 MiB of random weights).

Each is a fresh process. The model is read before the clocks start; then 90 % of the connections of
fc6, fc7 and fc8 are chosen, or half of the units of all layers that the method can take any from.
Told are the wall's time and the processors'. Target: 5 s by the wall, on two cores with nothing
beside. Run with:
.venv/bin/python bench/selection.py [--repeats N] [--folder DIR] [NAME...]
"""

import argparse
import json
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path

from model_io import LAYERS, MAKE, MIB, run

from pycaffe_prune.engines.caffe.python import find_caffe_python
from pycaffe_prune.formats.caffe_pb2 import NetParameter
from pycaffe_prune.formats.caffemodel import Caffemodel, read_caffemodel
from pycaffe_prune.formats.prototxt import read_net
from pycaffe_prune.pruning.connections import (
    prune_connections,
    prune_to_global_ratio,
    prune_to_ratios,
    thresholds,
)
from pycaffe_prune.pruning.criteria.connection_scores import connection_scores
from pycaffe_prune.pruning.criteria.units import UNIT_CRITERIA
from pycaffe_prune.pruning.merging import left_out_of_merging, merge_units
from pycaffe_prune.pruning.spreading import left_out_of_spreading, spread_units
from pycaffe_prune.pruning.unit_choice import choose_units
from pycaffe_prune.pruning.units import left_out_of_units
from pycaffe_prune.share import share_root

Select = Callable[[NetParameter, Caffemodel], object]
SECONDS_TARGET = 5.0
SPARSITY = 0.9
RATIO = 0.5
NET = share_root() / "prototxt/caffenet/deploy.prototxt"


def by_threshold(net: NetParameter, model: Caffemodel) -> object:  # noqa: ARG001  (as the others)
    """The paper's rule."""
    return prune_connections(model, thresholds(model, model, 1.0, LAYERS))


def by_magnitude(net: NetParameter, model: Caffemodel) -> object:  # noqa: ARG001
    """The lowest |w| of each layer."""
    return prune_to_ratios(model, dict.fromkeys(LAYERS, SPARSITY))


def by_magnitude_over_all(net: NetParameter, model: Caffemodel) -> object:  # noqa: ARG001
    """The lowest |w| of all layers."""
    return prune_to_global_ratio(model, SPARSITY, LAYERS)


def by_chance(net: NetParameter, model: Caffemodel) -> object:  # noqa: ARG001
    """Connections drawn by lot."""
    weights = {(name, 0): model.layer(name).blobs[0] for name in LAYERS}
    scores = connection_scores("random", weights)
    return prune_to_ratios(model, dict.fromkeys(LAYERS, SPARSITY), scores=scores)


def by_score(net: NetParameter, model: Caffemodel, criterion: str) -> object:
    """Units by a criterion."""
    ratios = _free(net, model, left_out_of_units)
    return choose_units(net, model, ratios, criterion=criterion)


def by_merging(net: NetParameter, model: Caffemodel) -> object:
    """Units to merge."""
    return merge_units(net, model, _free(net, model, left_out_of_merging))


def by_spreading(net: NetParameter, model: Caffemodel) -> object:
    """Units to spread."""
    return spread_units(net, model, _free(net, model, left_out_of_spreading))


def _free(
    net: NetParameter,
    model: Caffemodel,
    left_out: Callable[[NetParameter, Caffemodel], Mapping[str, str]],
) -> dict[str, float]:
    reasons = left_out(net, model)
    held = [layer.name for layer in model.layers if layer.blobs]
    return {name: RATIO for name in held if name not in reasons}


SELECTIONS: Mapping[str, Select] = {
    "threshold": by_threshold,
    "magnitude": by_magnitude,
    "magnitude over all": by_magnitude_over_all,
    "random": by_chance,
    **{f"units by {name}": partial(by_score, criterion=name) for name in sorted(UNIT_CRITERIA)},
    "merge": by_merging,
    "spread": by_spreading,
}


def once(name: str, weights: Path) -> dict[str, float]:
    """Do one selection in this process; return its seconds by both clocks."""
    net, model = read_net(NET), read_caffemodel(weights)
    wall, processors = time.perf_counter(), time.process_time()
    SELECTIONS[name](net, model)
    return {"wall": time.perf_counter() - wall, "cpu": time.process_time() - processors}


def made(folder: Path) -> Path:
    """Return the weights, which stay in a folder."""
    weights = folder / "caffenet-deploy.caffemodel"
    if not weights.exists():
        new = folder / "new.caffemodel"
        run(find_caffe_python().executable, "-c", MAKE, NET, new)
        new.rename(weights)
    return weights


def main() -> None:
    """Time each selection, the least of some runs."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("names", nargs="*", metavar="NAME", help=", ".join(SELECTIONS))
    parser.add_argument("--repeats", type=int, default=3)
    default = Path(tempfile.gettempdir()) / "pycaffe-prune-bench"
    parser.add_argument("--folder", type=Path, default=default, help="0.3 GiB; weights stay there")
    parser.add_argument("--once", type=Path, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.once:
        print(json.dumps(once(options.names[0], options.once)))
        return
    options.folder.mkdir(parents=True, exist_ok=True)
    weights = made(options.folder)
    print(f"{weights.stat().st_size / MIB:.0f} MiB; the least of {options.repeats} runs")
    missed = False
    for name in options.names or SELECTIONS:
        command = [sys.executable, __file__, "--once", str(weights), name]
        runs = [
            json.loads(subprocess.run(command, check=True, stdout=subprocess.PIPE).stdout)
            for _ in range(options.repeats)
        ]
        least = {clock: min(found[clock] for found in runs) for clock in runs[0]}
        print(f"{name:24} {least['wall']:5.2f} s by the wall, {least['cpu']:5.2f} s of CPU")
        missed |= least["wall"] > SECONDS_TARGET
    print(f"target: at most {SECONDS_TARGET:g} s by the wall")
    sys.exit(missed)


if __name__ == "__main__":
    main()
