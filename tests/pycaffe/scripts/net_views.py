"""Views that stay: hidden blobs written between passes, diffs before a backward pass."""

import caffe
import numpy as np
from twin import show

NET = """
name: 'views' force_backward: true
input: 'data' input_dim: 2 input_dim: 3 input_dim: 6 input_dim: 6
layer { name: 'conv' type: 'Convolution' bottom: 'data' top: 'conv'
  convolution_param { num_output: 4 kernel_size: 3 } }
layer { name: 'bn' type: 'BatchNorm' bottom: 'conv' top: 'conv' }
layer { name: 'scale' type: 'Scale' bottom: 'conv' top: 'conv' scale_param { bias_term: true } }
layer { name: 'relu' type: 'ReLU' bottom: 'conv' top: 'conv' }
layer { name: 'sig' type: 'Sigmoid' bottom: 'conv' top: 'sig' }
layer { name: 'cat' type: 'Concat' bottom: 'conv' bottom: 'sig' top: 'cat' }
layer { name: 'shape' type: 'Reshape' bottom: 'cat' top: 'rows'
  reshape_param { shape { dim: 0 dim: -1 } } }
layer { name: 'tanh' type: 'TanH' bottom: 'rows' top: 'rows' }
layer { name: 'ip' type: 'InnerProduct' bottom: 'rows' top: 'ip'
  inner_product_param { num_output: 5 } }
layer { name: 'prob' type: 'Softmax' bottom: 'ip' top: 'prob' }
"""

with open("net.prototxt", "w") as file:
    file.write(NET)

draws = np.random.RandomState(3)


def draw(blob):
    return draws.normal(0, 1, tuple(blob.shape))


for held in (False, True):
    for phase in (caffe.TEST, caffe.TRAIN):
        net = caffe.Net("net.prototxt", phase)
        for name in net.params:
            for blob in net.params[name]:
                blob.data[...] = abs(draw(blob)) * 0.3 + 0.1
        net.forward()  # from then on Splits have their bottoms' memory
        views = {name: (b.data, b.diff) for name, b in net.blobs.items()} if held else {}

        def tell(when, net=net, views=views):
            found = views or {name: (blob.data, blob.diff) for name, blob in net.blobs.items()}
            for name in found:
                show(when + " data " + name, found[name][0])
                show(when + " diff " + name, found[name][1])

        out = net.forward(data=draw(net.blobs["data"]))
        show("out", out["prob"])
        # A hidden blob is changed on the way.
        net.forward(end="sig")
        net.blobs["sig"].data[...] *= 2
        net.blobs["sig"].data[0, 1] = -1
        net.forward(start="cat")
        tell("changed")
        # Gradients begin anywhere.
        net.blobs["ip"].diff[...] = draw(net.blobs["ip"])
        back = net.backward(start="ip")
        show("back", back["data"])
        tell("from ip")
        net.blobs["prob"].diff[...] = draw(net.blobs["prob"])
        net.backward(end="tanh")
        tell("to tanh")
        net.forward()  # an in-place Scale of Caffe's goes back once only
        net.backward(prob=draw(net.blobs["prob"]), diffs=["ip"])
        tell("from prob")
        for name in net.params:
            show("grads " + name, [blob.diff.tolist() for blob in net.params[name]])
        net.clear_param_diffs()
        net.forward(start="ip", end="ip", blobs=["cat"])
        net.backward(start="ip", end="ip", diffs=["cat"])
        for name in net.params:
            show("cleared " + name, [blob.diff.tolist() for blob in net.params[name]])

held = {name: (blob.data, blob.diff) for name, blob in net.blobs.items()}
weights = [blob.data for name in net.params for blob in net.params[name]]
del net, blob
show("after the net", [float(data.sum() + diff.sum()) for data, diff in held.values()])
show("weights after the net", [float(values.sum()) for values in weights])
