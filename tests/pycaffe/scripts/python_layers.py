"""Layers written in Python: parameters, phases, losses, whatever the script defines."""

import caffe
import numpy as np
from twin import show


class Scaled(caffe.Layer):
    """Multiplies by a blob of its own."""

    def setup(self, bottom, top):
        self.told = dict(part.split("=") for part in self.param_str.split(","))
        self.blobs.add_blob(1)
        self.blobs.add_blob(2, 3)
        self.blobs[0].data[...] = float(self.told["scale"])

    def reshape(self, bottom, top):
        top[0].reshape(*bottom[0].shape)

    def forward(self, bottom, top):
        top[0].data[...] = bottom[0].data * self.blobs[0].data[0]

    def backward(self, top, propagate_down, bottom):
        show("propagate", [bool(value) for value in propagate_down])
        self.blobs[0].diff[...] += (top[0].diff * bottom[0].data).sum()
        if propagate_down[0]:
            bottom[0].diff[...] = top[0].diff * self.blobs[0].data[0]


class Distance(caffe.Layer):
    """Half the squared distance an image."""

    def setup(self, bottom, top):
        if len(bottom) != 2:
            raise ValueError("needs two bottoms")

    def reshape(self, bottom, top):
        if bottom[0].count != bottom[1].count:
            raise ValueError("needs equally many values")
        self.difference = np.zeros(tuple(bottom[0].shape))
        top[0].reshape(1)

    def forward(self, bottom, top):
        self.difference[...] = bottom[0].data - bottom[1].data
        top[0].data[...] = np.sum(self.difference**2) / bottom[0].num / 2

    def backward(self, top, propagate_down, bottom):
        for number, sign in enumerate((1, -1)):
            if propagate_down[number]:
                bottom[number].diff[...] = sign * self.difference / bottom[number].num


class Batches(caffe.Layer):
    """Makes data, another each time; in place it does nothing."""

    def setup(self, bottom, top):
        self.batch = 0
        top[0].reshape(2, 3)
        top[1].reshape(2, 2)

    def reshape(self, bottom, top):
        pass

    def forward(self, bottom, top):
        self.batch += 1
        top[0].data[...] = self.batch + np.arange(6).reshape(2, 3) * 0.1
        top[1].data[...] = self.phase

    def backward(self, top, propagate_down, bottom):
        pass


NET = """
name: 'python'
layer { name: 'data' type: 'Python' top: 'data' top: 'target'
  python_param { module: '__main__' layer: 'Batches' } }
layer { name: 'ip' type: 'InnerProduct' bottom: 'data' top: 'ip'
  inner_product_param { num_output: 2 } }
layer { name: 'scaled' type: 'Python' bottom: 'ip' top: 'scaled'
  python_param { module: '__main__' layer: 'Scaled' param_str: 'scale=3,name=one' } }
layer { name: 'again' type: 'Python' bottom: 'scaled' top: 'scaled' param { lr_mult: 0 }
  param { lr_mult: 0 } python_param { module: '__main__' layer: 'Scaled' param_str: 'scale=2' } }
layer { name: 'loss' type: 'Python' bottom: 'scaled' bottom: 'target' top: 'loss' loss_weight: 2
  python_param { module: '__main__' layer: 'Distance' share_in_parallel: false } }
"""

import __main__  # noqa: E402

for layer in (Scaled, Distance, Batches):
    setattr(__main__, layer.__name__, layer)

with open("net.prototxt", "w") as file:
    file.write(NET)

for phase in (caffe.TRAIN, caffe.TEST):
    net = caffe.Net("net.prototxt", phase)
    show("types", [layer.type for layer in net.layers])
    show("told", net.layers[2].told)
    show("params", [[name, [list(b.shape) for b in net.params[name]]] for name in net.params])
    net.params["ip"][0].data[...] = np.arange(6).reshape(2, 3) * 0.25
    for _ in range(2):
        show("loss", net._forward(0, 4))
        show("out", net.forward()["loss"])
        net.backward()
        for name in net.blobs:
            show("data " + name, net.blobs[name].data)
            show("diff " + name, net.blobs[name].diff)
        for name in net.params:
            show("weights " + name, [blob.data.tolist() for blob in net.params[name]])
            show("grads " + name, [blob.diff.tolist() for blob in net.params[name]])
    net.save("weights.caffemodel")
    net.params["scaled"][0].data[...] = -1
    net.copy_from("weights.caffemodel")
    show("copied", net.params["scaled"][0].data)
    other = caffe.Net("net.prototxt", phase)
    other.share_with(net)
    net.params["scaled"][0].data[...] = 5
    show("shared", other.params["scaled"][0].data)
