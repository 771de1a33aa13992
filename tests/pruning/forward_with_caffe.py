"""Run nets in the real Caffe, one after another, in one process; under Caffe's own Python, 3.6 on.

Each line of standard input is a JSON object: net, weights (paths), inputs (an .npz file, blob name
to array), out (an .npz file to write: every output of the TEST net). Each is answered by a line.
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

for line in sys.stdin:
    job = json.loads(line)
    net = caffe.Net(job["net"], job["weights"], caffe.TEST)
    with np.load(job["inputs"]) as inputs:
        for name in inputs.files:
            net.blobs[name].reshape(*inputs[name].shape)
            net.blobs[name].data[...] = inputs[name]
    net.forward()
    np.savez(job["out"], **{name: net.blobs[name].data for name in net.outputs})
    sys.stdout.write("done\n")
    sys.stdout.flush()
