"""Build nets in the real Caffe and print the shapes of their blobs and parameters as a JSON list.

Runs under Caffe's own Python, which may be much older than ours:
shapes_with_caffe.py NETS.json, where each net is [path of the prototxt, phase].
"""

import json
import sys
from pathlib import Path

import caffe


def shapes(net):
    """Return what the net holds, without the layers that Caffe inserts to copy a blob."""
    blobs = {name: list(blob.data.shape) for name, blob in net.blobs.items()}
    params = {name: [list(blob.data.shape) for blob in net.params[name]] for name in net.params}
    return {"blobs": blobs, "params": params}


found = [
    shapes(caffe.Net(path, phase)) for path, phase in json.loads(Path(sys.argv[1]).read_text())
]
sys.stdout.write(json.dumps(found))
