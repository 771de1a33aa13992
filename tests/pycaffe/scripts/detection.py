"""Windows of pictures classified by caffe.Detector."""

import caffe
import numpy as np
import old_skimage  # noqa: F401
from caffe import layers as L
from twin import fill, show, written

n = caffe.NetSpec()
n.data = L.Input(shape=dict(dim=[2, 3, 8, 8]))
n.conv = L.Convolution(n.data, num_output=4, kernel_size=4, stride=2)
n.tanh = L.TanH(n.conv, in_place=True)
n.score = L.InnerProduct(n.tanh, num_output=5)
model = written("detect.prototxt", n.to_proto())
net = caffe.Net(model, caffe.TEST)
fill(net, 3)
net.save("detect.caffemodel")

detector = caffe.Detector(
    model,
    "detect.caffemodel",
    mean=np.array([0.2, 0.4, 0.6]),
    raw_scale=2,
    channel_swap=(2, 1, 0),
    input_scale=0.5,
)
found = detector.detect_windows(
    [
        ("rgb.png", [np.array([0, 0, 9, 9]), (2, 3, 13, 17)]),
        ("grey.png", [np.array([4, 4, 12, 8])]),
    ]
)
for each in found:
    show(each["filename"], [int(side) for side in each["window"]])
    show("prediction", each["prediction"])
show("crop_dims", detector.crop_dims)
