"""The recipes of docs/pycaffe.md, as they stand there."""

import io
import re

import caffe
import old_skimage  # noqa: F401
from caffe import layers as L
from caffe import params as P
from twin import fill, show, written


def net(last, data, label=None):
    n = caffe.NetSpec()
    n.data = data
    n.conv1 = L.Convolution(n.data, num_output=4, kernel_size=3)
    n.pool1 = L.Pooling(n.conv1, kernel_size=2, stride=2, pool=P.Pooling.MAX)
    if last == "fc-conv":
        n[last] = L.Convolution(n.pool1, num_output=5, kernel_size=7)
    else:
        n[last] = L.InnerProduct(n.pool1, num_output=5, weight_filler=dict(value=0.01))
    if label is None:
        n.prob = L.Softmax(n[last])
    else:
        n.loss = L.SoftmaxWithLoss(n[last], label)
    return n.to_proto()


shape = dict(dim=[1, 3, 16, 16])
deploy = caffe.Net(written("deploy.prototxt", net("fc", L.Input(shape=shape))), caffe.TEST)
fill(deploy, 40, 0.02)
deploy.save("trained.caffemodel")
written("full_conv.prototxt", net("fc-conv", L.Input(shape=shape)))
data, label = L.DummyData(
    shape=[dict(dim=[2, 3, 16, 16]), dict(dim=[2])],
    data_filler=[dict(value=0.5), dict(value=3)],
    ntop=2,
)
settings = caffe.proto.caffe_pb2.SolverParameter(
    train_net=written("train.prototxt", net("fc_new", data, label)),
    base_lr=0.01,
    lr_policy="fixed",
    momentum=0.9,
)
written("solver.prototxt", settings)

with io.open("pycaffe.md", encoding="utf-8") as page:
    section = page.read().split("## Five recipes")[1].split("\n## ")[0]
recipes = re.findall(r"```python\n(.*?)```", section, re.S)
names = {"print": lambda *values: show(values[0], [int(value) for value in values[1:][0].flat])}
for recipe in recipes:
    exec(recipe, names)  # noqa: S102
show("recipes", len(recipes))
for name in ("prob", "features", "classes"):
    show(name, names[name])
show("losses", names["losses"], iterations=5)
solver = names["solver"]
show("pruned", solver.net.params["conv1"][0].data, iterations=10)
show("new", solver.net.params["fc_new"][0].data[:, :20], iterations=10)
