"""Which results of a report are of one net and one test set, and so may share a figure."""

import json
from collections import defaultdict
from collections.abc import Sequence

from pycaffe_prune.experiments.result import ExperimentResult
from pycaffe_prune.reports.methods.curves import method_curves

__all__ = ["of_one_net"]


def of_one_net(results: Sequence[ExperimentResult]) -> list[list[ExperimentResult]]:
    """Return the results that have curves of methods and others beside them of the same net.

    The same net: one solver, the same changes of its units, and one test set. In the order of the
    results; a net of a single result is left out.
    """
    found: dict[tuple[str, str, str], list[ExperimentResult]] = defaultdict(list)
    for result in results:
        settings = result.settings
        net = json.dumps(settings.get("net") or {}, sort_keys=True)
        if method_curves(result) and isinstance(settings.get("solver"), str):
            found[settings["solver"], net, result.data.test_sha256].append(result)
    return [group for group in found.values() if len(group) > 1]
