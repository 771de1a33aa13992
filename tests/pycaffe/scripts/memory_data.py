"""Arrays of a script's own as the net's data."""

import caffe
import numpy as np
from caffe import layers as L
from twin import fill, show, written

n = caffe.NetSpec()
n.data, n.label = L.MemoryData(batch_size=4, channels=2, height=3, width=3, ntop=2)
n.ip = L.InnerProduct(n.data, num_output=3)
n.loss = L.SoftmaxWithLoss(n.ip, n.label)
net = caffe.Net(written("memory.prototxt", n.to_proto()), caffe.TRAIN)
fill(net, 27)
rng = np.random.RandomState(28)
for images in (8, 12):
    data = rng.randn(images, 2, 3, 3).astype(np.float32)
    labels = rng.randint(0, 3, images).astype(np.float32)
    net.set_input_arrays(data, labels)
    for _ in range(4):
        show("loss", net.forward()["loss"])
        show("labels", net.blobs["label"].data)
    net.backward()
    show("gradient", net.params["ip"][0].diff)
