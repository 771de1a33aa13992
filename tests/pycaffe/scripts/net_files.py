"""Weights into files and back, old forms of nets, levels and stages, errors on the way."""

import caffe
import numpy as np
from caffe.proto import caffe_pb2
from twin import show

NET = """
name: 'files'
layer { name: 'data' type: 'Input' top: 'data' input_param { shape { dim: 2 dim: 3 } } }
layer { name: 'one' type: 'InnerProduct' bottom: 'data' top: 'one' param { name: 'w' }
  inner_product_param { num_output: 3 } }
layer { name: 'two' type: 'InnerProduct' bottom: 'one' top: 'two' param { name: 'w' }
  inner_product_param { num_output: 3 bias_term: false } }
layer { name: 'three' type: 'InnerProduct' bottom: 'one' top: 'three'
  include { stage: 'more' min_level: 1 } inner_product_param { num_output: 2 } }
layer { name: 'last' type: 'Scale' bottom: 'two' top: 'last' scale_param { bias_term: true } }
"""

V1 = """
name: 'old'
input: 'data' input_dim: 1 input_dim: 1 input_dim: 4 input_dim: 4
layers { name: 'conv' type: CONVOLUTION bottom: 'data' top: 'conv' blobs_lr: 1 blobs_lr: 0
  convolution_param { num_output: 2 kernel_size: 3 } }
layers { name: 'relu' type: RELU bottom: 'conv' top: 'conv' }
layers { name: 'ip' type: INNER_PRODUCT bottom: 'conv' top: 'ip'
  inner_product_param { num_output: 2 } }
"""

for path, text in (("net.prototxt", NET), ("v1.prototxt", V1)):
    with open(path, "w") as file:
        file.write(text)


def fill(net, seed):
    draws = np.random.RandomState(seed)
    for name in net.params:
        for blob in net.params[name]:
            blob.data[...] = draws.normal(size=tuple(blob.shape))


def tell(when, net):
    for name in net.params:
        show(when + " " + name, [blob.data.tolist() for blob in net.params[name]])


net = caffe.Net("net.prototxt", caffe.TRAIN, level=1, stages=["more"])
show("layers", list(net._layer_names))
show("others", list(caffe.Net("net.prototxt", caffe.TRAIN, stages=["more"])._layer_names))
show("none", list(caffe.Net("net.prototxt", 1, 1)._layer_names))
fill(net, 1)
net.save("net.caffemodel")
net.save_hdf5("net.caffemodel.h5")

stored = caffe_pb2.NetParameter()
with open("net.caffemodel", "rb") as file:
    stored.ParseFromString(file.read())
show("name", stored.name)
for layer in stored.layer:
    show("stored", [layer.name, layer.type, list(layer.bottom), list(layer.top), layer.phase])
    show("blobs", [[list(blob.shape.dim), list(blob.data)] for blob in layer.blobs])

for path in ("net.caffemodel", "net.caffemodel.h5"):
    tell(path, caffe.Net("net.prototxt", caffe.TEST, weights=path))
    tell(path, caffe.Net("net.prototxt", path, caffe.TEST))
    other = caffe.Net("net.prototxt", caffe.TRAIN, 1, ["more"])
    fill(other, 2)
    other.copy_from(path)
    tell(path, other)
fill(other, 3)
other.load_hdf5("net.caffemodel.h5")
tell("hdf5", other)
other.share_with(net)
net.params["two"][0].data[...] = 2
tell("shared", other)
show("one memory", bool((net.params["one"][0].data == 2).all()))

old = caffe.Net("v1.prototxt", caffe.TEST)
show("v1", [list(old._layer_names), old.inputs, [list(b.shape) for b in old.blobs.values()]])
fill(old, 4)
show("v1 out", old.forward_all(data=np.arange(48.0).reshape(3, 1, 4, 4) / 50)["ip"])
outs, diffs = old.forward_backward_all(
    blobs=["conv"], data=np.ones((2, 1, 4, 4)), ip=np.ones((2, 2))
)
show("all", [np.asarray(outs["conv"]).tolist(), np.asarray(diffs["data"]).tolist()])

for name, what in (
    ("none", lambda: caffe.Net("none.prototxt", caffe.TEST)),
    ("weights", lambda: caffe.Net("net.prototxt", caffe.TEST, weights="none.caffemodel")),
    ("inputs", lambda: old.forward(dat=np.ones(3))),
    ("batch", lambda: old.forward(data=np.ones((2, 1, 4, 4)))),
    ("diffs", lambda: old.backward(data=np.ones(3))),
    ("diff", lambda: old.backward(ip=np.ones((2, 2)))),
    ("shape", lambda: old.forward(data=np.ones((1, 1, 4, 5)))),
    ("first", lambda: net.set_input_arrays(np.ones((1, 1, 1, 1)), np.ones(1))),
):
    try:
        what()
    except Exception as error:
        show("error " + name, str(error))

calls = []
for name in ("before_forward", "after_forward", "before_backward", "after_backward"):
    getattr(old, name)(lambda layer, name=name: calls.append([name, layer]))
old.forward(start="conv", end="relu")
old.backward(start="ip", end="relu")
show("calls", calls)
