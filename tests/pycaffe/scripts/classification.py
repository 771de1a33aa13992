"""A picture classified: by hand with a Transformer, layer by layer, and by caffe.Classifier."""

import caffe
import numpy as np
import old_skimage  # noqa: F401
from caffe import layers as L
from caffe import params as P
from twin import fill, show, written

n = caffe.NetSpec()
n.data = L.Input(shape=dict(dim=[10, 3, 10, 12]))
n.conv1 = L.Convolution(n.data, num_output=6, kernel_size=3, stride=2, group=3)
n.relu1 = L.ReLU(n.conv1, in_place=True)
n.norm1 = L.LRN(n.relu1, local_size=3, alpha=0.1, beta=0.75)
n.pool1 = L.Pooling(n.norm1, pool=P.Pooling.MAX, kernel_size=2, stride=2)
n.fc = L.InnerProduct(n.pool1, num_output=7)
n.prob = L.Softmax(n.fc)
model = written("deploy.prototxt", n.to_proto())

net = caffe.Net(model, caffe.TEST)
fill(net, 0)
net.save("weights.caffemodel")
net = caffe.Net(model, "weights.caffemodel", caffe.TEST)

mean = np.random.RandomState(1).rand(3, 16, 16).astype(np.float32) * 100
mean = mean.mean(1).mean(1)
transformer = caffe.io.Transformer({"data": net.blobs["data"].data.shape})
transformer.set_transpose("data", (2, 0, 1))
transformer.set_mean("data", mean)
transformer.set_raw_scale("data", 255)
transformer.set_channel_swap("data", (2, 1, 0))
transformer.set_input_scale("data", 0.05)

net.blobs["data"].reshape(2, 3, 10, 12)
image = caffe.io.load_image("rgb.png")
net.blobs["data"].data[...] = transformer.preprocess("data", image)
output = net.forward()
show("prob", output["prob"])
show("top", output["prob"][0].argsort()[::-1][:3])
for name, blob in net.blobs.items():
    show(name, list(blob.data.shape))
for name, blobs in net.params.items():
    show(name, [list(blob.data.shape) for blob in blobs])
show("filters", net.params["conv1"][0].data.transpose(0, 2, 3, 1))
show("features", net.blobs["conv1"].data[0, :2])
show("histogram", np.histogram(net.blobs["pool1"].data[0], 4)[0])

classifier = caffe.Classifier(
    model,
    "weights.caffemodel",
    image_dims=(12, 16),
    mean=mean,
    input_scale=0.05,
    raw_scale=255,
    channel_swap=(2, 1, 0),
)
pictures = [image, caffe.io.load_image("photo.jpg"), caffe.io.load_image("grey.png")]
show("oversampled", classifier.predict(pictures))
show("middle", classifier.predict(pictures, oversample=False))
show("inputs", [classifier.inputs, classifier.outputs, list(map(int, classifier.crop_dims))])
