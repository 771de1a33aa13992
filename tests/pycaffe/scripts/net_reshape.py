"""Shapes that change while a net is used; weights stay."""

import caffe
import numpy as np
from twin import show

NET = """
name: 'reshape' force_backward: true
layer { name: 'data' type: 'Input' top: 'data' input_param {
  shape { dim: 2 dim: 3 dim: 8 dim: 8 } } }
layer { name: 'conv' type: 'Convolution' bottom: 'data' top: 'conv'
  convolution_param { num_output: 4 kernel_size: 3 stride: 2 } }
layer { name: 'relu' type: 'ReLU' bottom: 'conv' top: 'conv' }
layer { name: 'pool' type: 'Pooling' bottom: 'conv' top: 'pool'
  pooling_param { pool: AVE global_pooling: true } }
layer { name: 'ip' type: 'InnerProduct' bottom: 'pool' top: 'ip'
  inner_product_param { num_output: 3 } }
layer { name: 'flat' type: 'Flatten' bottom: 'conv' top: 'flat' }
layer { name: 'score' type: 'Convolution' bottom: 'conv' top: 'score'
  convolution_param { num_output: 2 kernel_size: 1 } }
layer { name: 'prob' type: 'Softmax' bottom: 'score' top: 'prob' }
"""

with open("net.prototxt", "w") as file:
    file.write(NET)

draws = np.random.RandomState(5)
net = caffe.Net("net.prototxt", caffe.TEST)
for name in net.params:
    for blob in net.params[name]:
        blob.data[...] = draws.normal(0, 0.5, tuple(blob.shape))


def tell(when):
    show(when, [list(blob.shape) for blob in net.blobs.values()])


tell("at first")
for shape in ((2, 3, 8, 8), (1, 3, 8, 8), (5, 3, 11, 9), (3, 3, 5, 5), (2, 3, 8, 8)):
    net.blobs["data"].reshape(*shape)
    tell("before")
    net.reshape()
    tell("reshaped")
    net.blobs["data"].data[...] = draws.normal(size=shape)
    out = net.forward()
    for name in sorted(out):
        show(name, out[name])
    net.blobs["prob"].diff[...] = draws.normal(size=tuple(net.blobs["prob"].shape))
    net.blobs["ip"].diff[...] = 1
    net.blobs["flat"].diff[...] = 0
    net.backward()
    show("back", net.blobs["data"].diff)

net.blobs["data"].reshape(1, 3, 6, 6)
net.blobs["data"].data[...] = 1
net.forward()
tell("by forward alone")

# A blob keeps its values, as many as there is room for.
blob = net.blobs["flat"]
blob.reshape(2, 3)
blob.data[...] = [[1, 2, 3], [4, 5, 6]]
blob.reshape(3, 1)
show("fewer", blob.data)
blob.reshape(6)
show("as before", blob.data)
blob.reshape()
show("scalar", blob.data)
show("scalar shape", list(blob.shape))
