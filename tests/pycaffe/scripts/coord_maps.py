"""Where pixels lie: maps of coordinates through convolutions, pools and crops."""

import caffe
from caffe import coord_map
from caffe import layers as L
from twin import show


def shown(name, mapped):
    axis, scale, shift = mapped
    show(name, [axis, list(map(float, scale)), list(map(float, shift))])


n = caffe.NetSpec()
n.data = L.Input(shape=dict(dim=[1, 3, 100, 120]))
n.conv = L.Convolution(n.data, num_output=4, kernel_size=[5, 3], stride=2, pad=[1, 2], dilation=2)
n.relu = L.ReLU(n.conv, in_place=True)
n.pool = L.Pooling(n.relu, kernel_size=3, stride=2, pad=1)
n.scale = L.Scale(n.pool)
n.up = L.Deconvolution(
    n.scale, convolution_param=dict(num_output=4, kernel_size=8, stride=4, pad=2, axis=1)
)
n.cut = L.Crop(n.up, n.data, crop_param=dict(axis=2, offset=[3, 5]))

for name in ("conv", "relu", "pool", "scale", "up", "cut"):
    shown(name, coord_map.coord_map_from_to(n[name], n.data) if name != "relu" else (1, [1], [0]))
shown("to and fro", coord_map.coord_map_from_to(n.up, n.pool))
shown("inverse", coord_map.inverse(coord_map.coord_map_from_to(n.pool, n.data)))
show("params", [list(map(float, part)) for part in coord_map.conv_params(n.conv.fn)[1:]])
show(
    "crop params",
    [float(coord_map.crop_params(n.cut.fn)[1][1]), coord_map.crop_params(n.cut.fn)[0]],
)

m = caffe.NetSpec()
m.data = L.Input(shape=dict(dim=[1, 1, 40, 40]))
m.small = L.Convolution(m.data, num_output=2, kernel_size=3, stride=2, pad=40)
m.up = L.Deconvolution(m.small, convolution_param=dict(num_output=2, kernel_size=3, stride=2))
m.score = coord_map.crop(m.up, m.data)
show("crop", m.to_proto())

odd = L.Deconvolution(m.small, convolution_param=dict(num_output=2, kernel_size=4, stride=2))
valid = L.Convolution(m.data, num_output=2, kernel_size=3)
for name, tops in (
    ("scale", (m.small, m.data)),
    ("negative", (valid, m.data)),
    ("half", (odd, m.data)),
    ("apart", (m.up, L.Input(shape=dict(dim=[1])))),
    ("undefined", (L.Flatten(m.data), m.data)),
    ("axes", (L.Convolution(m.up, axis=2, kernel_size=1, num_output=1), m.data)),
):
    try:
        coord_map.crop(*tops)
    except Exception as error:
        kinds = (AssertionError, RuntimeError, coord_map.AxisMismatchException)
        show(name, [isinstance(error, kind) for kind in kinds])
