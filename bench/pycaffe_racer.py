"""A script for both modules named caffe: KIND FOLDER NET BATCH (Python 3.6 on).

KIND is biases, forward, passes, step or write.

Each line on standard input says how often; the seconds that took go to standard output.
"""

import os
import sys
import time

import caffe
import numpy as np


def filled_net(path, batch):
    """Return a net with random weights and images."""
    net = caffe.Net(path, caffe.TEST)
    random = np.random.RandomState(0)
    for blobs in net.params.values():
        for blob in blobs:
            blob.data[...] = 0.05 * random.standard_normal(tuple(blob.shape))
    net.blobs["data"].reshape(batch, *net.blobs["data"].shape[1:])
    net.reshape()
    net.blobs["data"].data[...] = random.standard_normal(tuple(net.blobs["data"].shape))
    if "cont" in net.blobs:
        net.blobs["cont"].data[1:] = 1  # each sequence begins once
    return net


def forward(net):
    """Return what runs a batch through a net."""
    return net.forward


def passes(net):
    """Return what runs a batch through a net and back."""
    top = net.blobs[net.outputs[0]]
    top.diff[...] = np.random.RandomState(1).standard_normal(tuple(top.shape))

    def run():
        net.forward()
        net.backward()

    return run


def write(net):
    """Return what writes all weights of a net, as net surgery and masks do."""
    return writing(net, (0, 1))


def biases(net):
    """Return what writes the biases alone, which are small: what counts is the way to them."""
    return writing(net, (1,))


def writing(net, places):
    """Return what writes the blobs of these numbers of each layer."""
    values = [(name, place, net.params[name][place].data.copy())
              for name in net.params for place in places]  # fmt: skip

    def written():
        for name, place, array in values:
            net.params[name][place].data[...] = array

    return written


def main(kind, folder, path, batch):
    """Do it as often as each line says, until standard input ends."""
    os.chdir(folder)
    caffe.set_mode_cpu()
    if kind == "step":
        run = caffe.get_solver("solver.prototxt").step
    else:
        kinds = {"biases": biases, "forward": forward, "passes": passes, "write": write}
        once = kinds[kind](filled_net(path, int(batch)))

        def run(times):
            for _ in range(times):
                once()

    for line in sys.stdin:
        start = time.perf_counter()
        run(int(line))
        print("%.9f" % (time.perf_counter() - start))
        sys.stdout.flush()


if __name__ == "__main__":
    main(*sys.argv[1:])
