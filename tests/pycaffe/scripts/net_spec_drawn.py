"""Nets drawn at random from what NetSpecs can say; the prototxt is the number."""

import caffe
import numpy as np
from caffe import layers as L
from caffe import params as P
from twin import show

CHOICES = {
    "Convolution": dict(
        num_output=[1, 32],
        kernel_size=[3, [3, 5]],
        bias_term=[True, False],
        weight_filler=[dict(type="xavier"), dict(type="gaussian", std=0.1)],
        param=[dict(lr_mult=2), [dict(name="w"), dict(name="b", decay_mult=0)]],
        convolution_param=[dict(pad_h=1, pad_w=2), dict(engine=P.Convolution.CAFFE)],
    ),
    "Pooling": dict(
        pool=[P.Pooling.AVE, P.Pooling.STOCHASTIC], kernel_size=[2], global_pooling=[True]
    ),
    "ReLU": dict(in_place=[True, False], negative_slope=[0.1], relu_param=[dict()]),
    "Power": dict(power=[2.0], scale=[1e-7, 3], shift=[-1]),
    "InnerProduct": dict(num_output=[np.int64(5)], axis=[-1], param=[[dict()], []][:1]),
    "Dropout": dict(dropout_ratio=[0.5], include=[dict(phase=0), [dict(stage=["a", "b"])]]),
    "Reshape": dict(shape=[dict(dim=[0, -1])], reshape_param=[dict(axis=1)]),
    "Python": dict(module=["own"], layer=["Own"], param_str=["'a'"], loss_weight=[1, [1, 2]]),
    "Eltwise": dict(operation=[P.Eltwise.MAX], coeff=[[1, -1], 0.5], name=["sum"]),
    "Slice": dict(slice_point=[1, [1, 2]], axis=[1], ntop=[2, 3]),
    "Concat": dict(concat_dim=[1], axis=[2], phase=[caffe.TEST, caffe.TRAIN]),
    "BatchNorm": dict(use_global_stats=[False], propagate_down=[True, [False]]),
    "Silence": dict(ntop=[0]),
    "OfNobody": dict(exclude=[dict(min_level=2)], transform_param=[dict(mean_value=[1, 2])]),
}


def drawn(rng, tops):
    kind = sorted(CHOICES)[rng.randint(len(CHOICES))]
    keywords = {}
    for name, values in sorted(CHOICES[kind].items()):
        if rng.rand() < 0.6 or (kind == "Silence"):
            keywords[name] = values[rng.randint(len(values))]
    bottoms = [tops[rng.randint(len(tops))] for _ in range(rng.randint(1, 3))]
    return getattr(L, kind)(*bottoms, **keywords)


for seed in range(60):
    rng = np.random.RandomState(seed)
    tops = list(L.Input(shape=[dict(dim=[1, 3, 8, 8])] * 2, ntop=2))
    n = caffe.NetSpec()
    loose = []
    for _ in range(rng.randint(1, 12)):
        made = drawn(rng, tops)
        if not isinstance(made, tuple):
            made = (made,)
        for top in made:
            if rng.rand() < 0.6 or not hasattr(top, "fn"):
                n["blob{}".format(len(n.tops))] = top
            else:
                loose.append(top)
            if hasattr(top, "fn"):
                tops.append(top)
    show("spec {}".format(seed), n.to_proto())
    show("loose {}".format(seed), caffe.to_proto(*loose))
