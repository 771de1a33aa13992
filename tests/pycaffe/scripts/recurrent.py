"""Sequences: hidden states that go on from pass to pass, and batches of other sizes."""

import caffe
import numpy as np
from caffe import layers as L
from twin import fill, show, written

n = caffe.NetSpec()
n.values = L.Input(shape=dict(dim=[4, 3, 2]))
n.cont = L.Input(shape=dict(dim=[4, 3]))
n.image = L.Input(shape=dict(dim=[3, 5]))
n.each = L.InnerProduct(n.values, num_output=4, axis=2)
n.lstm = L.LSTM(n.each, n.cont, n.image, recurrent_param=dict(num_output=6))
n.rnn = L.RNN(n.lstm, n.cont, recurrent_param=dict(num_output=5))
n.score = L.InnerProduct(n.rnn, num_output=7, axis=2)
proto = n.to_proto()
proto.force_backward = True
path = written("recurrent.prototxt", proto)
for phase in (caffe.TRAIN, caffe.TEST):
    net = caffe.Net(path, phase)
    fill(net, 31)
    show("shapes", [list(blob.data.shape) for blobs in net.params.values() for blob in blobs])
    rng = np.random.RandomState(32)
    for streams in (3, 3, 2, 3, 5):
        net.blobs["values"].reshape(4, streams, 2)
        net.blobs["cont"].reshape(4, streams)
        net.blobs["image"].reshape(streams, 5)
        net.blobs["values"].data[...] = rng.randn(4, streams, 2)
        net.blobs["cont"].data[...] = rng.rand(4, streams) < 0.8
        net.blobs["image"].data[...] = rng.randn(streams, 5)
        show("score", net.forward()["score"])
        net.blobs["score"].diff[...] = rng.randn(4, streams, 7)
        net.clear_param_diffs()
        net.backward()
        show("image diff", net.blobs["image"].diff)
        show("values diff", net.blobs["values"].diff)
        for blob in net.params["lstm"]:
            show("diff", blob.diff)
        net.backward()
        show("twice", net.params["rnn"][2].diff)

n = caffe.NetSpec()
n.x, n.cont = L.Input(ntop=2, shape=[dict(dim=[2, 3, 4]), dict(dim=[2, 3])])
n.h, n.c = L.Input(ntop=2, shape=[dict(dim=[1, 3, 2]), dict(dim=[1, 3, 2])])
n.y, n.h1, n.c1 = L.LSTM(
    n.x, n.cont, n.h, n.c, ntop=3, recurrent_param=dict(num_output=2, expose_hidden=True)
)
net = caffe.Net(written("exposed.prototxt", n.to_proto()), caffe.TEST)
fill(net, 33)
net.blobs["x"].data[...] = np.random.RandomState(34).randn(2, 3, 4)
net.blobs["cont"].data[...] = 1
for _ in range(3):
    found = net.forward()
    for name in ("y", "h1", "c1"):
        show(name, found[name])
    net.blobs["h"].data[...] = found["h1"]
    net.blobs["c"].data[...] = found["c1"]
