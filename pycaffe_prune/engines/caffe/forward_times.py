"""How long the real Caffe takes for a forward pass: the job's files, and what comes of it."""

from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

from pycaffe_prune.engines.base import Event
from pycaffe_prune.engines.job import TimesJob
from pycaffe_prune.engines.net_files import refuse_files
from pycaffe_prune.engines.run_folder import RunFolder
from pycaffe_prune.engines.trusted_layers import module_folders
from pycaffe_prune.errors import EngineError
from pycaffe_prune.formats.files import write_text
from pycaffe_prune.formats.prototxt import read_net, write_prototxt
from pycaffe_prune.formats.temporary import temporary_folder
from pycaffe_prune.net.trust import refuse_untrusted

__all__ = ["times_by_files"]


def times_by_files(
    net_path: Path,
    weights: Path,
    batches: Sequence[int],
    work: Callable[[RunFolder], Iterator[Event]],
    *,
    trust: bool,
) -> tuple[float, ...]:
    """Return milliseconds for each number of images; see `CaffeEngine.forward_times`.

    Args:
        net_path: The net.
        weights: Its weights.
        batches: Numbers of images.
        work: Does the job that a folder holds, in a worker.
        trust: Whether the net is the user's own, and may run code (`net.trust`).
    """
    net = read_net(net_path)
    if not trust:
        refuse_untrusted(net, net_path)
        refuse_files(net, net_path)
    folders = module_folders() if trust else ()
    job = TimesJob(weights=str(weights.resolve()), batches=tuple(batches), module_folders=folders)
    with temporary_folder() as place:
        folder = RunFolder(place)
        write_prototxt(folder.net, net)
        write_text(folder.job, job.model_dump_json())
        *_, last = work(folder)
    found = (last.model_extra or {}).get("milliseconds")
    if not isinstance(found, list) or len(found) != len(batches):
        raise EngineError(f"{net_path}: Caffe told no times of it")
    return tuple(map(float, found))
