"""Run a net that is one Data layer in the real Caffe and save what it delivers.

Runs under Caffe's own Python, which may be much older than ours:
read_with_caffe.py NET.prototxt OUT.npz FORWARDS
"""

import sys

import caffe
import numpy as np

net = caffe.Net(sys.argv[1], caffe.TEST)
data, label = [], []
for _ in range(int(sys.argv[3])):
    net.forward()
    data.append(net.blobs["data"].data.copy())
    label.append(net.blobs["label"].data.copy())
np.savez(sys.argv[2], data=np.concatenate(data), label=np.concatenate(label))
