"""The masks that a run leaves whose masks changed while it trained."""

import numpy as np

from pycaffe_prune.engines.caffe.caffe_worker.mask_state import read_mask_state
from pycaffe_prune.engines.caffe.caffe_worker.snapshots import SNAPSHOT
from pycaffe_prune.engines.job import Job
from pycaffe_prune.engines.run_folder import RunFolder
from pycaffe_prune.errors import EngineError
from pycaffe_prune.formats.caffemodel import read_caffemodel
from pycaffe_prune.formats.files import sha256_of
from pycaffe_prune.formats.mask import MaskFile, write_mask
from pycaffe_prune.pruning.connections import nonzero_where_masked

__all__ = ["write_final_mask"]


def write_final_mask(folder: RunFolder, job: Job) -> str:
    """Write the masks of the last snapshot as a mask file; return its SHA-256.

    Args:
        folder: Of a run that is done: its weights are there, and its last snapshot.
        job: What it did; its masks changed.

    Raises:
        EngineError: Weights live that the masks prune.
    """
    if job.masking is None:
        raise EngineError(f"{folder.path}: the masks of this run did not change")
    moved, _ = read_mask_state(str(folder.snapshots / (SNAPSHOT % job.max_iter)))
    masks = {}
    if job.masked:
        with np.load(folder.mask_arrays, allow_pickle=False) as file:
            masks = {key: file[f"m{place}"] for place, key in enumerate(job.masked)}
    masks |= dict(zip(job.masking.keys, moved, strict=True))
    alive = sum(nonzero_where_masked(read_caffemodel(folder.final_weights), masks).values())
    if alive:
        raise EngineError(f"{folder.final_weights}: {alive} pruned weights are not zero")
    source = sha256_of(folder.final_weights)
    parameters = job.masking.model_dump(mode="json", exclude={"kind"})
    write_mask(folder.final_mask, MaskFile(masks, source, job.masking.kind, parameters))
    return sha256_of(folder.final_mask)
