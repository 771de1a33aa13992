"""A net behind a Filter: its shapes follow the images that pass."""

import caffe
import numpy as np
from twin import show

NET = """
name: 'filtering'
layer { name: 'in' type: 'Input' top: 'data' top: 'label' top: 'pass' input_param {
  shape { dim: 6 dim: 2 dim: 5 dim: 5 } shape { dim: 6 } shape { dim: 6 dim: 1 } } }
layer { name: 'conv' type: 'Convolution' bottom: 'data' top: 'conv'
  convolution_param { num_output: 3 kernel_size: 2 } }
layer { name: 'filter' type: 'Filter' bottom: 'conv' bottom: 'label' bottom: 'pass'
  top: 'some' top: 'labels' }
layer { name: 'spp' type: 'SPP' bottom: 'some' top: 'spp' spp_param { pyramid_height: 2 } }
layer { name: 'ip' type: 'InnerProduct' bottom: 'spp' top: 'ip'
  inner_product_param { num_output: 4 } }
layer { name: 'loss' type: 'SoftmaxWithLoss' bottom: 'ip' bottom: 'labels' top: 'loss'
  propagate_down: [true, false] }
"""

with open("net.prototxt", "w") as file:
    file.write(NET)

draws = np.random.RandomState(3)
net = caffe.Net("net.prototxt", caffe.TRAIN)
for name in net.params:
    for blob in net.params[name]:
        blob.data[...] = draws.normal(0, 0.5, tuple(blob.shape))
show("at first", [list(blob.shape) for blob in net.blobs.values()])
net.blobs["label"].data[...] = [0, 1, 2, 3, 2, 1]

for passing in ([1, 0, 1, 1, 0, 0], [0, -2, 0, 0, 0.5, 0], [1, 1, 1, 1, 1, 1], [0, 0, 0, 0, 0, 9]):
    net.blobs["data"].data[...] = draws.normal(0, 1, (6, 2, 5, 5))
    net.blobs["pass"].data[:, 0] = passing
    show("loss", net.forward()["loss"])
    net.clear_param_diffs()
    net.backward()
    show("shapes", [list(blob.shape) for blob in net.blobs.values()])
    for name in ("some", "labels", "spp", "ip"):
        show(name, net.blobs[name].data)
    for name in net.params:
        show(name + "'s gradients", [blob.diff.tolist() for blob in net.params[name]])
    show("gradient before the filter", net.blobs["conv"].diff)
