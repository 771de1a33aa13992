"""Build nets in the real Caffe, each in a process of its own, and say on which it aborts.

Runs under Caffe's own Python, which may be much older than ours: aborts_with_caffe.py FILE, where
FILE is a JSON list of paths of nets. Prints a JSON list: what Caffe said, or null for a net that it
builds.
"""

import json
import os
import sys
import tempfile
import types
from pathlib import Path

# caffe.io imports skimage to load image files, which nothing here does: 1.5 s saved a start.
for name in ("skimage", "skimage.io", "skimage.transform"):
    sys.modules[name] = types.ModuleType(name)
sys.modules["skimage.transform"].resize = None

import caffe  # noqa: E402 -- after the stand-ins


def what_it_says(path):
    """What Caffe says of a net on which it aborts."""
    with tempfile.TemporaryFile() as errors:
        child = os.fork()
        if child == 0:
            os.dup2(errors.fileno(), 2)
            caffe.Net(path, caffe.TRAIN)
            os._exit(0)
        _, status = os.waitpid(child, 0)
        errors.seek(0)
        said = errors.read().decode("utf-8", "replace")
    return None if status == 0 else said or "nothing"


nets = json.loads(Path(sys.argv[1]).read_text())
sys.stdout.write(json.dumps([what_it_says(path) for path in nets]))
