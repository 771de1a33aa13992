"""Small nets for twin scripts, their solvers, and numbers to fill both with."""

import numpy as np

NET = """
name: "small"
layer { name: "data" type: "Input" top: "data" top: "label"
  input_param { shape { dim: 6 dim: 2 dim: 5 dim: 5 } shape { dim: 6 } } }
layer { name: "conv" type: "Convolution" bottom: "data" top: "conv" param { lr_mult: 1 }
  param { lr_mult: 2 decay_mult: 0 } convolution_param { num_output: 3 kernel_size: 2 } }
layer { name: "relu" type: "ReLU" bottom: "conv" top: "conv" }
layer { name: "fc" type: "InnerProduct" bottom: "conv" top: "fc"
  inner_product_param { num_output: 4 } }
layer { name: "loss" type: "SoftmaxWithLoss" bottom: "fc" bottom: "label" top: "loss" }
layer { name: "accuracy" type: "Accuracy" bottom: "fc" bottom: "label" top: "accuracy"
  include { phase: TEST } }
"""


def write(path, text):
    """Write a file and return its name."""
    with open(path, "w") as file:
        file.write(text)
    return path


def solver_file(path, settings, net=NET):
    """Write a solver, and its net beside it, and return the solver's name."""
    write(path + ".net", net)
    return write(path, 'net: "{}.net" {}'.format(path, settings))


def fill(net, seed=0, scale=0.5):
    """Fill the parameters of a net with numbers that belong to a seed."""
    random = np.random.RandomState(seed)
    for name in net.params:
        for blob in net.params[name]:
            blob.data[...] = scale * random.randn(*blob.data.shape)


def feed(net, seed=1):
    """Fill the inputs of the small net."""
    random = np.random.RandomState(seed)
    net.blobs["data"].data[...] = random.randn(*net.blobs["data"].data.shape)
    net.blobs["label"].data[...] = random.randint(4, size=net.blobs["label"].data.shape)


def params(net):
    """Return all parameters of a net as one list of numbers."""
    blobs = [blob for name in net.params for blob in net.params[name]]
    return np.concatenate([blob.data.flatten() for blob in blobs])


def diffs(net):
    """Return all gradients of a net's parameters as one list of numbers."""
    blobs = [blob for name in net.params for blob in net.params[name]]
    return np.concatenate([blob.diff.flatten() for blob in blobs])
