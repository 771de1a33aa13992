"""LeNet and a pair of nets that share weights, written as NetSpecs; the prototxt is the number."""

import caffe
from caffe import layers as L
from caffe import params as P
from twin import show


def lenet(batch):
    n = caffe.NetSpec()
    n.data, n.label = L.Data(
        batch_size=batch,
        backend=P.Data.LMDB,
        source="digits_lmdb",
        transform_param=dict(scale=1.0 / 255, mirror=False),
        ntop=2,
    )
    n.conv1 = L.Convolution(n.data, kernel_size=5, num_output=20, weight_filler=dict(type="xavier"))
    n.pool1 = L.Pooling(n.conv1, kernel_size=2, stride=2, pool=P.Pooling.MAX)
    n.fc1 = L.InnerProduct(
        n.pool1,
        num_output=50,
        param=[dict(lr_mult=1, decay_mult=1), dict(lr_mult=2, decay_mult=0)],
    )
    n.relu1 = L.ReLU(n.fc1, in_place=True, negative_slope=0.1)
    n.score = L.InnerProduct(n.relu1, num_output=10)
    n.accuracy = L.Accuracy(n.score, n.label, include=dict(phase=caffe.TEST), top_k=3)
    n.loss = L.SoftmaxWithLoss(
        n.score,
        n.label,
        loss_weight=2,
        loss_param=dict(normalization=P.Loss.BATCH_SIZE),
        propagate_down=[1, 0],
    )
    return n.to_proto()


def siamese():
    n = caffe.NetSpec()
    n.pair, n["sim"] = L.DummyData(shape=[dict(dim=[4, 2, 6, 6]), dict(dim=[4])], ntop=2)
    n.left, n.right = L.Slice(n.pair, ntop=2, slice_point=1, axis=1)
    for side in ("left", "right"):
        shared = [dict(name="w"), dict(name="b")]
        n["feat_" + side] = L.InnerProduct(n[side], num_output=3, param=shared)
    n.loss = L.ContrastiveLoss(n.feat_left, n.feat_right, n.sim, margin=0.5)
    n.silence = L.Silence(n.sim, ntop=0)
    return n.to_proto()


def unnamed():
    data, label = L.Input(shape=[dict(dim=[1, 3, 8, 8]), dict(dim=[1])], ntop=2)
    one = L.ReLU(L.Convolution(data, kernel_size=[3, 1], num_output=2), in_place=True)
    two = L.Convolution(data, convolution_param=dict(kernel_h=3, kernel_w=1, num_output=2))
    both = L.Eltwise(one, two, operation=P.Eltwise.MAX, coeff=[1, -0.1])
    own = L.Python(both, module="layers_of_mine", layer="Own", param_str="{'a': 1}")
    return caffe.to_proto(L.Softmax(own), L.Softmax(L.Flatten(both)), label)


for name, net in (("lenet", lenet(64)), ("siamese", siamese()), ("unnamed", unnamed())):
    show(name, net)
show("one top", L.Concat(L.Input(), L.Input(), axis=2).to_proto())
