"""Image files read, resized, cropped and preprocessed."""

import caffe
import numpy as np
import old_skimage  # noqa: F401
from twin import show

for name in ("rgb.png", "grey.png", "rgba.png", "grey16.png", "palette.png", "photo.jpg"):
    for color in (True, False):
        show(name, caffe.io.load_image(name, color))

rng = np.random.RandomState(3)
colour = (rng.rand(12, 15, 3) * 3 - 1).astype(np.float32)
deep = rng.randn(12, 15, 4).astype(np.float32)
for size in ((7, 9), (15, 12), (20, 31), (1, 1)):
    for order in range(4):
        show("resized {} {}".format(size, order), caffe.io.resize_image(colour, size, order))
        show("four {} {}".format(size, order), caffe.io.resize_image(deep, size, order))
show("one", caffe.io.resize_image(colour[:, :, :1], (5, 6), interp_order=5))
show("float64", caffe.io.resize_image(colour.astype(float), (5, 20)))
show("bytes", caffe.io.resize_image(np.arange(60, dtype=np.uint8).reshape(5, 4, 3), (4, 4)))
show("flat", caffe.io.resize_image(np.ones((4, 4, 3)), (2, 3)))
show("crops", caffe.io.oversample([colour, colour[::-1]], (5, 8)))

transformer = caffe.io.Transformer({"data": (2, 3, 8, 10)})
show("plain", transformer.preprocess("data", colour.reshape(15, 12, 3)[:8, :10].copy()).shape)
transformer.set_transpose("data", (2, 0, 1))
transformer.set_channel_swap("data", (2, 1, 0))
transformer.set_raw_scale("data", 255)
transformer.set_input_scale("data", 0.5)
for mean in (
    np.array([104.0, 117.0, 123.0]),
    rng.rand(3, 8, 10) * 200,
    rng.rand(3, 16, 16).astype(np.float32) * 200,
    rng.rand(1, 4, 4),
):
    transformer.set_mean("data", mean)
    there = transformer.preprocess("data", colour)
    show("preprocessed", there)
    show("dtype", str(there.dtype))
    show("back", transformer.deprocess("data", there[np.newaxis]))

for wrong in (
    lambda: transformer.preprocess("label", colour),
    lambda: transformer.set_transpose("data", (1, 0)),
    lambda: transformer.set_channel_swap("data", (1, 0)),
    lambda: transformer.set_mean("data", np.ones(2)),
    lambda: transformer.set_mean("data", np.ones((1, 1, 1, 1))),
    lambda: transformer.set_raw_scale("label", 1),
    lambda: transformer.set_input_scale("label", 1),
):
    try:
        wrong()
    except Exception as error:
        show("refused", isinstance(error, ValueError))
