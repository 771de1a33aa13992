"""A small net on scikit-learn's digits, and solvers of it on any device.

It has no corners (ReLU, maximum), at which a rounding may decide and two devices part.
"""

from pathlib import Path

import torch
from google.protobuf import text_format

from pycaffe_prune.engines.torch.solver import Solver
from pycaffe_prune.formats.caffe_pb2 import NetParameter, SolverParameter

NET = """
layer {{ name: "data" type: "Data" top: "data" top: "label"
  transform_param {{ scale: 0.00390625 {transform} }}
  data_param {{ source: "{source}" batch_size: 48 backend: LMDB }} }}
layer {{ name: "conv" type: "Convolution" bottom: "data" top: "conv"
  convolution_param {{ num_output: 6 kernel_size: 5 stride: 2
    weight_filler {{ type: "xavier" }} }} }}
{normalization}
layer {{ name: "pool" type: "Pooling" bottom: "conv" top: "pool"
  pooling_param {{ pool: AVE kernel_size: 3 stride: 2 }} }}
layer {{ name: "norm" type: "LRN" bottom: "pool" top: "norm" lrn_param {{ local_size: 3 }} }}
layer {{ name: "ip1" type: "InnerProduct" bottom: "norm" top: "ip1"
  inner_product_param {{ num_output: 20 weight_filler {{ type: "xavier" }} }} }}
layer {{ name: "tanh" type: "TanH" bottom: "ip1" top: "ip1" }}
{dropout}
layer {{ name: "ip2" type: "InnerProduct" bottom: "ip1" top: "ip2"
  param {{ lr_mult: 1 }} param {{ lr_mult: 2 decay_mult: 0 }}
  inner_product_param {{ num_output: 10 weight_filler {{ type: "xavier" }} }} }}
layer {{ name: "loss" type: "SoftmaxWithLoss" bottom: "ip2" bottom: "label" top: "loss" }}
"""

NORMALIZATION = """
layer { name: "normal" type: "BatchNorm" bottom: "conv" top: "conv" }
layer { name: "scale" type: "Scale" bottom: "conv" top: "conv" scale_param { bias_term: true } }
"""

DROPOUT = 'layer { name: "drop" type: "Dropout" bottom: "ip1" top: "ip1" }'


def small_net(
    digits: Path, *, transform: str = "", normalized: bool = False, dropout: bool = False
) -> NetParameter:
    """A convolutional net, perhaps with BatchNorm, Dropout and a transformation of its images."""
    text = NET.format(
        source=digits / "mnist_train_lmdb",
        transform=transform,
        normalization=NORMALIZATION if normalized else "",
        dropout=DROPOUT if dropout else "",
    )
    return text_format.Parse(text, NetParameter())


def solver_of(settings: str, seed: int = 1) -> SolverParameter:
    told = SolverParameter(base_lr=0.05, weight_decay=0.0005, max_iter=1000, random_seed=seed)
    return text_format.Merge(settings, told)


def make_solver(
    net: NetParameter,
    settings: str = 'lr_policy: "inv" gamma: 0.01 power: 0.75 momentum: 0.9',
    seed: int = 1,
    device: str = "cpu",
) -> Solver:
    return Solver(solver_of(settings, seed), net, torch.device(device))
