"""A layer that writes a file, which another net reads."""

import gc

import caffe
import numpy as np
from twin import show, written

NET = """
layer { name: 'in' type: 'Input' top: 'data' top: 'label' input_param {
  shape { dim: 4 dim: 3 dim: 2 } shape { dim: 4 } } }
layer { name: 'relu' type: 'ReLU' bottom: 'data' top: 'data' }
layer { name: 'out' type: 'HDF5Output' bottom: 'data' bottom: 'label'
  hdf5_output_param { file_name: 'out.h5' } }
"""
READER = """
layer { name: 'in' type: 'HDF5Data' top: 'data' top: 'label'
  hdf5_data_param { source: 'list.txt' batch_size: 4 } }
"""

net = caffe.Net(written("writer.prototxt", NET), caffe.TEST)
net.blobs["data"].data[...] = np.random.RandomState(1).normal(0, 1, (4, 3, 2))
net.blobs["label"].data[...] = [3, 1, 4, 1]
net.forward()
del net
gc.collect()

written("list.txt", "out.h5\n")
reader = caffe.Net(written("reader.prototxt", READER), caffe.TEST)
reader.forward()
for name in ("data", "label"):
    show("shape of " + name, list(reader.blobs[name].shape))
    show(name, reader.blobs[name].data)
