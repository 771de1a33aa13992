"""The gradient that reaches the first layer of nets, by the real Caffe; for Caffe's own Python.

Each line of standard input is a JSON object: net (a prototxt) and out (an .npy file to write: the
gradient of the weights of the layer ``conv``). Blobs ``data`` and ``target`` and all parameters but
BatchNorm's get values drawn from a seed, the same for each net. Each is answered by a line.
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
    """Forward and backward."""
    caffe.set_random_seed(3)
    net = caffe.Net(job["net"], caffe.TRAIN)
    for place, name in enumerate(["data", "target"]):
        blob = net.blobs[name].data
        blob[...] = np.random.RandomState(place).normal(size=blob.shape)
    for name, params in net.params.items():
        if net.layers[list(net._layer_names).index(name)].type == "BatchNorm":
            continue
        for place, param in enumerate(params):
            values = np.random.RandomState(7 + place).normal(size=param.data.shape)
            param.data[...] = 0.5 * values
    caffe.set_random_seed(3)
    net.forward()
    net.backward()
    np.save(job["out"], net.params["conv"][0].diff)


for line in sys.stdin:
    run(json.loads(line))
    sys.stdout.write("done\n")
    sys.stdout.flush()
