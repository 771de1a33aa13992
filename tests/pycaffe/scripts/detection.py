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


# pycaffe cuts images at floats, which NumPy has refused since 1.12: here they are cut at whole
# numbers.
def whole(place):
    return None if place is None else int(place)


class Cut(np.ndarray):
    def __getitem__(self, key):
        if isinstance(key, tuple) and all(isinstance(side, slice) for side in key):
            key = tuple(
                slice(*(None if e is None else int(e) for e in (s.start, s.stop))) for s in key
            )
        return np.asarray(self)[key]


read = caffe.io.load_image
WINDOWS = ([2, 3, 9, 12], [0, 0, 6, 6], [5, 9, 12, 16], [1, 1, 13, 17], [6, 2, 8, 15])
for mean in (None, np.array([0.2, 0.4, 0.6]), np.linspace(0, 1, 192).reshape(3, 8, 8)):
    for context_pad in (1, 2):
        padded = caffe.Detector(
            model,
            "detect.caffemodel",
            mean=mean,
            raw_scale=2,
            channel_swap=(2, 1, 0),
            context_pad=context_pad,
        )
        caffe.io.load_image = lambda name: read(name).view(Cut)
        for window in WINDOWS:
            crop = padded.crop(read("rgb.png").view(Cut), np.array(window))
            show("crop", np.asarray(crop))
        found = padded.detect_windows([("rgb.png", [np.array(each) for each in WINDOWS])])
        caffe.io.load_image = read
        show("with surroundings", [each["prediction"].tolist() for each in found])
