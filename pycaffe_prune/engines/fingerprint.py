"""What of a net and a solver decides a run's outcome, as a checksum: equal ones, the same run."""

import hashlib
from pathlib import Path

from pycaffe_prune.engines.net_data import records
from pycaffe_prune.formats.caffe_pb2 import NetParameter, SolverParameter
from pycaffe_prune.formats.carried import to_text
from pycaffe_prune.formats.files import sha256_of

__all__ = ["net_fingerprint", "solver_fingerprint"]


def net_fingerprint(net: NetParameter) -> str:
    """Return the checksum of a net whose LMDBs and mean files have absolute paths.

    Names and sizes of its data stand for their paths: a moved folder is the same data.

    Raises:
        DataError: An LMDB is missing, damaged or empty.
    """
    portable = NetParameter()
    portable.CopyFrom(net)
    for layer in portable.layer:
        if layer.type == "Data":
            layer.data_param.source = f"{Path(layer.data_param.source).name}: {records(layer)}"
        if layer.transform_param.mean_file:
            layer.transform_param.mean_file = sha256_of(Path(layer.transform_param.mean_file))
    return _sha256(portable)


def solver_fingerprint(solver: SolverParameter) -> str:
    """Return the checksum of a solver without its paths, its length and what it only shows."""
    deciding = SolverParameter()
    deciding.CopyFrom(solver)
    for name in ("net", "max_iter", "random_seed", "test_iter", "display", "solver_mode"):
        deciding.ClearField(name)
    return _sha256(deciding)


def _sha256(message: NetParameter | SolverParameter) -> str:
    return hashlib.sha256(to_text(message).encode()).hexdigest()
