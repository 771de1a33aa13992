"""Run data layers in the real Caffe, one after another; under Caffe's own Python, 3.6 on.

Each line of standard input is a JSON object: net (path), phase, forwards, out (an .npz file to
write: per blob what each forward pass brought). Each is answered by a line.
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
    net = caffe.Net(job["net"], job["phase"])
    found = {name: [] for name in net.blobs}
    for _ in range(job["forwards"]):
        net.forward()
        for name, batches in found.items():
            batches.append(net.blobs[name].data.copy())
    np.savez(job["out"], **found)
    del net
    sys.stdout.write("done\n")
    sys.stdout.flush()
