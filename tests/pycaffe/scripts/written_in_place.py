"""What is written into a blob between the passes, where a layer works in place."""

import caffe
import numpy as np
from twin import show

KINDS = (
    'type: "ReLU"',
    'type: "ReLU" relu_param { negative_slope: 0.2 }',
    'type: "ELU" elu_param { alpha: 0.7 }',
    'type: "ELU"',
    'type: "Sigmoid"',
    'type: "TanH"',
    'type: "Exp" exp_param { base: 2 scale: 0.5 shift: 0.3 }',
)
NET = """
force_backward: true
layer { name: "data" type: "Input" top: "data" input_param { shape { dim: 2 dim: 6 } } }
layer { name: "fc" type: "InnerProduct" bottom: "data" top: "fc"
  inner_product_param { num_output: 5 } }
layer { name: "act" %s bottom: "fc" top: "%s" }
layer { name: "out" type: "InnerProduct" bottom: "%s" top: "out"
  inner_product_param { num_output: 3 } }
"""


def made(kind, top):
    with open("net.prototxt", "w") as file:
        file.write(NET % (kind, top, top))
    net = caffe.Net("net.prototxt", caffe.TRAIN)
    draws = np.random.RandomState(3)
    for name in net.params:
        for blob in net.params[name]:
            blob.data[...] = draws.normal(0, 0.8, tuple(blob.shape))
    net.blobs["data"].data[...] = draws.normal(0, 1, (2, 6))
    net.blobs["out"].diff[...] = draws.normal(0, 1, (2, 3))
    return net


def show_gradients(when, net):
    show(when, [net.blobs["data"].diff.tolist(), net.params["fc"][0].diff.tolist()])
    show(when + ", next layer", net.params["out"][0].diff)


draws = np.random.RandomState(5)
for number, kind in enumerate(KINDS):
    for top in ("fc", "act"):
        for looked_at in (False, True):
            net = made(kind, top)
            view = net.blobs[top].data if looked_at else None
            net.forward()
            view = net.blobs[top].data if view is None else view
            view[...] = draws.normal(0, 1, (2, 5))
            net.backward()
            show_gradients("{} written".format(number), net)
            net = made(kind, top)
            net.forward()
            net.blobs[top].data[...] *= -1
            net.forward(start="out")
            net.clear_param_diffs()
            net.backward()
            show_gradients("{} gone on with".format(number), net)
