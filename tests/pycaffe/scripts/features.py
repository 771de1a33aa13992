"""Hidden blobs of all pictures of an LMDB, as features in messages of their own."""

import caffe
import numpy as np
from caffe import layers as L
from caffe import params as P
from twin import fill, show, written

n = caffe.NetSpec()
n.data, n.label = L.Data(
    batch_size=8,
    backend=P.Data.LMDB,
    source="digits_test_lmdb",
    transform_param=dict(crop_size=10, mean_value=[90], scale=0.01),
    ntop=2,
)
n.conv = L.Convolution(n.data, num_output=4, kernel_size=5, stride=3)
n.bn = L.BatchNorm(n.conv, use_global_stats=True)
n.scale = L.Scale(n.bn, bias_term=True)
n.pool = L.Pooling(n.scale, pool=P.Pooling.AVE, global_pooling=True)
n.flat = L.Flatten(n.pool)
net = caffe.Net(written("features.prototxt", n.to_proto()), caffe.TEST)
fill(net, 17)
for blob in net.params["bn"]:
    blob.data[...] = np.abs(blob.data) + 0.5

features, labels, stored = [], [], []
for _ in range(3):
    net.forward()
    for feature, label in zip(net.blobs["pool"].data, net.blobs["label"].data):
        features.append(feature.copy())
        labels.append(int(label))
        stored.append(caffe.io.array_to_datum(feature, int(label)).SerializeToString())
show("outputs", net.outputs)
show("labels", labels)
show("features", np.array(features)[..., 0, 0])
back = caffe.proto.caffe_pb2.Datum.FromString(stored[20])
show("round the end", [back.label == labels[0], back.channels])
show("same", bool((caffe.io.datum_to_array(back) == features[20]).all()))
distances = ((np.array(features[:20])[:, np.newaxis] - np.array(features[:20])) ** 2).sum(
    axis=(2, 3, 4)
)
show("distances", distances)
