"""What a net tells of itself, with Splits, in-place layers, automatic tops and shared weights."""

import caffe
import numpy as np
from twin import show

NET = """
name: 'surface'
layer { name: 'data' type: 'Input' top: 'data' top: 'label'
  input_param { shape { dim: 2 dim: 3 dim: 6 dim: 5 } shape { dim: 2 } } }
layer { name: 'conv' type: 'Convolution' bottom: 'data' top: 'conv'
  convolution_param { num_output: 4 kernel_size: 3 pad: 1 } }
layer { name: 'relu' type: 'ReLU' bottom: 'conv' top: 'conv' }
layer { name: 'pool' type: 'Pooling' bottom: 'conv' top: 'pool'
  pooling_param { kernel_size: 2 stride: 2 } }
layer { name: 'ip' type: 'InnerProduct' bottom: 'pool' top: 'ip'
  param { name: 'w' } param { lr_mult: 2 } inner_product_param { num_output: 4 } }
layer { name: 'twin' type: 'InnerProduct' bottom: 'pool' top: 'twin'
  param { name: 'w' } param { lr_mult: 0 } inner_product_param { num_output: 4 } }
layer { name: 'sum' type: 'Eltwise' bottom: 'ip' bottom: 'twin' top: 'sum' }
layer { name: 'flat' type: 'Flatten' bottom: 'conv' top: 'flat' }
layer { name: 'loss' type: 'SoftmaxWithLoss' bottom: 'sum' bottom: 'label' loss_weight: 2 top: 'l' }
layer { name: 'hinge' type: 'HingeLoss' bottom: 'sum' bottom: 'label' }
layer { name: 'acc' type: 'Accuracy' bottom: 'sum' bottom: 'label' top: 'acc'
  include { phase: TEST } }
layer { name: 'power' type: 'Power' bottom: 'l' top: 'power' power_param { scale: 3 } }
"""

with open("net.prototxt", "w") as file:
    file.write(NET)

draws = np.random.RandomState(3)
show("layer types", list(caffe.layer_type_list()))
show("version", caffe.__version__)


def fill(net):
    state = np.random.RandomState(7)
    for name in net.params:
        for blob in net.params[name]:
            blob.data[...] = state.normal(0, 0.3, tuple(blob.shape))


for phase in (caffe.TRAIN, caffe.TEST):
    net = caffe.Net("net.prototxt", phase)
    fill(net)
    show("layers", list(net._layer_names))
    show("types", [layer.type for layer in net.layers])
    show("blobs", list(net.blobs))
    show("shapes", [list(blob.shape) for blob in net.blobs.values()])
    show("losses", list(net.blob_loss_weights.values()))
    show("params", [[name, [list(b.shape) for b in net.params[name]]] for name in net.params])
    show("inputs", [net.inputs, list(net._inputs)])
    show("outputs", [net.outputs, list(net._outputs)])
    show("tops", [list(net.top_names), list(net.top_names.values())])
    show("bottoms", list(net.bottom_names.values()))
    show("ids", [[list(net._top_ids(n)), list(net._bottom_ids(n))] for n in range(len(net.layers))])
    show("dict", [net.layer_dict[name].type for name in net._layer_names])
    show("counts", [len(layer.blobs) for layer in net.layers])
    net.blobs["data"].data[...] = draws.normal(size=(2, 3, 6, 5))
    net.blobs["label"].data[...] = [1, 3]
    loss = net._forward(0, len(net.layers) - 1)
    show("loss", loss)
    for name in net.blobs:
        show("data " + name, net.blobs[name].data)
    net._backward(len(net.layers) - 1, 0)
    for name in net.blobs:
        show("diff " + name, net.blobs[name].diff)
    for name in net.params:
        show("grads " + name, [blob.diff.tolist() for blob in net.params[name]])

blob = net.blobs["conv"]
show("legacy", [blob.num, blob.channels, blob.height, blob.width, blob.count])
show("conv shape", list(blob.data.shape))
