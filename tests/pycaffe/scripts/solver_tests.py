"""Several test nets: which there are, in which states, and what their blobs hold."""

import caffe
from small_nets import NET, feed, fill, params, solver_file, write
from twin import show

SEVERAL = (
    NET
    + """
layer { name: "deep" type: "InnerProduct" bottom: "fc" top: "deep"
  inner_product_param { num_output: 2 } include { stage: "deep" } }
layer { name: "level" type: "Power" bottom: "fc" top: "twice" power_param { scale: 2 }
  include { min_level: 1 } }
"""
)
BASE = 'base_lr: 0.1 momentum: 0.9 lr_policy: "fixed" max_iter: 4 snapshot_after_train: false '

solver = caffe.SGDSolver(
    solver_file(
        "several",
        BASE + 'test_iter: 2 test_iter: 3 test_interval: 2 test_state { stage: "deep" } '
        "test_state { level: 1 } train_state { level: 2 }",
        SEVERAL,
    )
)
show("train", list(solver.net.blobs))
show("tests", [list(net.blobs) for net in solver.test_nets])
fill(solver.net)
feed(solver.net)
for place, net in enumerate(solver.test_nets):
    fill(net, seed=7)
    feed(net, seed=place + 2)
passes = [0, 0]


def count(place):
    def counted(layer):
        passes[place] += layer == 0

    return counted


for place, net in enumerate(solver.test_nets):
    net.before_forward(count(place))
solver.step(1)
show("tested at the start", passes)
show("with these weights", params(solver.test_nets[1]))
solver.step(1)
show("not yet", passes)
solver.solve()
show("at 2 and at the end", [passes, solver.iter])
for net in solver.test_nets:
    outputs = [name for name in net.outputs if name in ("loss", "accuracy")]
    show("outputs", [net.blobs[name].data.tolist() for name in outputs], 4)

late = caffe.SGDSolver(
    solver_file("late", BASE + "test_iter: 1 test_interval: 3 test_initialization: false")
)
fill(late.net)
for net in (late.net, late.test_nets[0]):
    feed(net)
tested = []
late.test_nets[0].before_forward(lambda layer: tested.append(layer))
late.step(3)
show("not before 3", tested)
late.step(1)
show("then", len(tested))

# nets by their own files, one of them for tests alone
write("train.net", NET)
write("test.net", NET.replace("num_output: 4", "num_output: 5"))
inline = (
    'name: "inline" layer { name: "x" type: "Input" top: "x" input_param { shape { dim: 2 } } }'
)
apart = caffe.SGDSolver(
    write(
        "apart",
        BASE + 'train_net: "train.net" test_net: "test.net" test_iter: 1 test_iter: 1 '
        "test_interval: 5 test_net_param { %s }" % inline,
    )
)
show("in this order", [list(net.blobs) for net in apart.test_nets])
show("sizes", [apart.net.blobs["fc"].data.shape, apart.test_nets[1].blobs["fc"].data.shape])
none = caffe.SGDSolver(write("no tests", BASE + 'train_net: "train.net"'))
show("none", len(none.test_nets))
