"""A net drawn: nodes, edges and their labels."""

import caffe
import pydot_recorder  # noqa: F401 (before caffe.draw, which imports pydot)
from caffe import draw
from caffe import layers as L
from caffe import params as P
from twin import show

n = caffe.NetSpec()
n.data, n.label = L.Data(
    batch_size=32, ntop=2, backend=P.Data.LMDB, source="x", include=dict(phase=caffe.TRAIN)
)
n.conv = L.Convolution(n.data, num_output=8, kernel_size=3, pad=1, param=[dict(lr_mult=2)])
n.pool = L.Pooling(n.conv, kernel_size=2, stride=2, pool=P.Pooling.AVE)
n.up = L.Deconvolution(n.pool, convolution_param=dict(num_output=4, kernel_size=2))
n.fc = L.InnerProduct(n.up, num_output=10, param=[dict(lr_mult=0), dict(lr_mult=0)])
n.relu = L.ReLU(n.fc, in_place=True)
n.drop = L.Dropout(n.relu, exclude=dict(phase=caffe.TEST))
n.loss = L.SoftmaxWithLoss(n.drop, n.label)
n.count = L.Accuracy(n.drop, n.label, include=dict(phase=caffe.TEST))
net = n.to_proto()

for phase in (None, caffe.TRAIN, caffe.TEST):
    for rankdir, edges, rates in (("LR", True, False), ("TB", False, True)):
        graph = draw.get_pydot_graph(net, rankdir, edges, phase, rates)
        show("{} {}".format(phase, rankdir), graph.drawn)

draw.draw_net_to_file(net, "net.svg", "BT")
with open("net.svg") as drawn:
    show("file", drawn.read())
show("pools", sorted(draw.get_pooling_types_dict().items()))
for layer in net.layer:
    try:
        show(layer.name, draw.get_layer_lr_mult(layer))
    except ValueError:
        show(layer.name, "no rate")
net.layer[0].exclude.add()
try:
    draw.get_pydot_graph(net, "LR", phase=caffe.TEST)
except ValueError:
    show("both rules", "refused")
