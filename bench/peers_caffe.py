"""The real Caffe's side of `peers.py` (Python 3.6 on): what its user writes in pycaffe.

train FOLDER ITERATIONS [MASKS] trains ``net.prototxt`` from ``weights.caffemodel``, puts masked
weights back to zero after each iteration, writes ``caffe.caffemodel`` and tests.
delete NET WEIGHTS SMALL_NET OUT LAYER=FOLLOWING... deletes half of each layer's units, those with
the smallest incoming weights, by copying what stays into a smaller net that is defined already.
"""

import json
import os
import sys
import time

import caffe
import numpy as np
from peers_tasks import TEST_BATCHES


def train(folder, iterations, masks=None):
    """Train and test; print what that took and gave as JSON."""
    if masks:
        with np.load(masks) as held:
            masks = [(name, held[name]) for name in held.files]
    os.chdir(folder)
    solver = caffe.get_solver("solver.prototxt")
    solver.net.copy_from("weights.caffemodel")
    wall, processors = time.perf_counter(), time.process_time()
    if masks:
        for _ in range(int(iterations)):
            solver.step(1)
            for name, mask in masks:
                solver.net.params[name][0].data[...] *= mask
    else:
        solver.step(int(iterations))
    took = {"wall": time.perf_counter() - wall, "cpu": time.process_time() - processors}
    solver.net.save("caffe.caffemodel")
    blobs = [blob.data for blobs in solver.net.params.values() for blob in blobs]
    took["weights"] = sum(int(np.count_nonzero(blob)) for blob in blobs)
    net = caffe.Net("net.prototxt", "caffe.caffemodel", caffe.TEST)
    right = [float(net.forward()["accuracy"]) for _ in range(TEST_BATCHES)]
    print(json.dumps(dict(took, accuracy=float(np.mean(right)))))


def delete(net_path, weights, small_path, out, *layers):
    """Delete half of the units of layers; print how many weights are left as JSON."""
    net = caffe.Net(net_path, weights, caffe.TEST)
    small = caffe.Net(small_path, caffe.TEST)
    following = dict(told.split("=") for told in layers)
    keep = {}
    for name in following:
        rows = net.params[name][0].data
        scores = np.abs(rows).reshape(len(rows), -1).sum(axis=1, dtype=np.float64)
        keep[name] = np.sort(np.argsort(scores, kind="stable")[len(rows) // 2 :])
    before = {after: name for name, after in following.items()}
    for name, blobs in net.params.items():
        for index, blob in enumerate(blobs):
            kept = blob.data[keep[name]] if name in keep else blob.data
            if index == 0 and name in before:
                units = net.params[before[name]][0].data.shape[0]
                wide = kept.reshape(len(kept), units, -1)[:, keep[before[name]]]
                kept = wide.reshape(len(kept), -1, *kept.shape[2:])
            small.params[name][index].data[...] = kept
    small.save(out)
    sizes = [blob.data.size for blobs in small.params.values() for blob in blobs]
    print(json.dumps({"weights": sum(sizes)}))


if __name__ == "__main__":
    caffe.set_mode_cpu()
    {"train": train, "delete": delete}[sys.argv[1]](*sys.argv[2:])
