"""Run layers in the real Caffe, one after another, forward and backward; for Caffe's own Python.

Each line of standard input is a JSON object: net (a prototxt whose last layer is the one in
question; those before it are there for its bottoms, and not run), phase (0 TRAIN, 1 TEST), arrays
(an .npz file: blobs by name as ``data:<blob>``, parameters as ``param:<index>``, gradients as
``diff:<blob>``) and out (an .npz file to write, laid out the same way). Each is answered by a line.
"""

import json
import sys
import types

import numpy as np

# caffe.io imports skimage to load image files, which nothing here does: 1.5 s saved a start.
for name in ("skimage", "skimage.io", "skimage.transform"):
    sys.modules[name] = types.ModuleType(name)
sys.modules["skimage.transform"].resize = None

import caffe  # noqa: E402 -- after the stand-ins


def run(job):
    """Forward and backward of one layer: everything that it made."""
    net = caffe.Net(job["net"], job["phase"])
    layer = net._layer_names[-1]
    tops, bottoms = net.top_names[layer], net.bottom_names[layer]
    params = net.params.get(layer, [])
    with np.load(job["arrays"]) as arrays:
        for key in arrays.files:
            kind, _, name = key.partition(":")
            if kind == "data":
                net.blobs[name].data[...] = arrays[key]
            elif kind == "param":
                params[int(name)].data[...] = arrays[key]
        last = len(net.layers) - 1
        net._forward(last, last)
        found = {"data:" + name: net.blobs[name].data.copy() for name in tops}
        for key in arrays.files:
            if key.startswith("diff:"):
                net.blobs[key[len("diff:") :]].diff[...] = arrays[key]
    net._backward(last, last)
    found.update(("diff:" + name, net.blobs[name].diff) for name in bottoms)
    for index, param in enumerate(params):
        found["param:" + str(index)] = param.data
        found["param_diff:" + str(index)] = param.diff
    np.savez(job["out"], **found)


for line in sys.stdin:
    run(json.loads(line))
    sys.stdout.write("done\n")
    sys.stdout.flush()
