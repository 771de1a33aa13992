"""Every type of solver, every policy of the learning rate, and what changes an update."""

import caffe
import numpy as np
from small_nets import NET, diffs, feed, fill, params, solver_file
from twin import show

TYPES = {
    "SGD": "momentum: 0.9",
    "Nesterov": "momentum: 0.95",
    "AdaGrad": "delta: 1e-6",
    "RMSProp": "rms_decay: 0.9 delta: 1e-5",
    "AdaDelta": "momentum: 0.95 delta: 1e-6",
    "Adam": "momentum: 0.9 momentum2: 0.99 delta: 1e-6",
}
BASE = 'base_lr: 0.05 weight_decay: 0.01 lr_policy: "fixed" max_iter: 10 '


def run(solver, steps=4):
    fill(solver.net)
    feed(solver.net)
    solver.step(steps)
    return [params(solver.net).tolist(), diffs(solver.net).tolist()]


for kind, settings in TYPES.items():
    name = solver_file(kind, BASE + settings + ' type: "{}"'.format(kind))
    solver = caffe.get_solver(name)
    show(kind, [type(solver).__name__, isinstance(solver, caffe.SGDSolver), run(solver)], 4)
    fixed = getattr(caffe, kind + "Solver")(solver_file("as " + kind, BASE + settings))
    show(kind + " by its class", run(fixed), 4)

# the class tells, whatever the file says
plain = caffe.SGDSolver(solver_file("adam", BASE + 'type: "Adam" momentum: 0.9'))
show("a class of its own", [type(plain).__name__, run(plain)], 4)
show("old type", type(caffe.get_solver(solver_file("old", BASE + "solver_type: ADAM"))).__name__)

POLICIES = {
    "fixed": "",
    "step": "gamma: 0.5 stepsize: 3",
    "exp": "gamma: 0.9",
    "inv": "gamma: 0.1 power: 0.75",
    "multistep": "gamma: 0.1 stepvalue: 2 stepvalue: 3 stepvalue: 6",
    "poly": "power: 2",
    "sigmoid": "gamma: 0.5 stepsize: 4",
}
for policy, settings in POLICIES.items():
    text = 'base_lr: 0.1 momentum: 0.5 max_iter: 9 lr_policy: "{}" {}'.format(policy, settings)
    solver = caffe.SGDSolver(solver_file(policy, text))
    rates = []
    for _ in range(8):
        solver.apply_update()
        rates.append(solver.lr)
    show(policy, rates)

CHANGES = {
    "clip": "clip_gradients: 0.3 momentum: 0.9",
    "L1": 'regularization_type: "L1" momentum: 0.9',
    "iter_size": "iter_size: 3 momentum: 0.9",
    "no momentum": "",
}
for name, settings in CHANGES.items():
    show(name, run(caffe.SGDSolver(solver_file(name, BASE + settings))), 4)

# layers that learn nothing, or faster
frozen = NET.replace("lr_mult: 1 }", "lr_mult: 0 }").replace(
    "inner_product_param", "param { lr_mult: 10 decay_mult: 5 } inner_product_param"
)
solver = caffe.SGDSolver(solver_file("frozen", BASE + "momentum: 0.9", frozen))
fill(solver.net)
before = solver.net.params["conv"][0].data.copy()
show("frozen", run(solver), 4)
show("as it was", bool(np.array_equal(before, solver.net.params["conv"][0].data)))

# iter_size takes a new batch for each pass
fed = caffe.SGDSolver(solver_file("fed", BASE + "iter_size: 2 momentum: 0.9"))
fill(fed.net)
passes = []


def next_batch(layer):
    if layer == 0:
        passes.append(layer)
        feed(fed.net, len(passes))


fed.net.after_forward(next_batch)
fed.step(2)
show("batches", [len(passes), params(fed.net).tolist()], 2)
