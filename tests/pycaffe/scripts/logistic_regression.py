"""Rows of an HDF5 file told apart: by logistic regression, then with a hidden layer."""

import caffe
from caffe import layers as L
from twin import fill, show, written


def logreg(source, batch, hidden):
    n = caffe.NetSpec()
    n.data, n.label = L.HDF5Data(batch_size=batch, source=source, ntop=2)
    last = n.data
    if hidden:
        n.ip1 = L.InnerProduct(n.data, num_output=hidden)
        last = n.relu1 = L.ReLU(n.ip1, in_place=True)
    n.score = L.InnerProduct(last, num_output=2)
    n.accuracy = L.Accuracy(n.score, n.label)
    n.loss = L.SoftmaxWithLoss(n.score, n.label)
    return n.to_proto()


caffe.set_mode_cpu()
for hidden in (0, 8):
    settings = caffe.proto.caffe_pb2.SolverParameter(
        train_net=written("rows_train.prototxt", logreg("rows_train.txt", 10, hidden)),
        test_net=[written("rows_test.prototxt", logreg("rows_test.txt", 10, hidden))],
        test_iter=[2],
        test_interval=10,
        max_iter=30,
        base_lr=0.1,
        lr_policy="step",
        gamma=0.1,
        stepsize=20,
        momentum=0.9,
        weight_decay=5e-4,
        display=0,
        snapshot=0,
        snapshot_prefix="rows",
        solver_mode=caffe.proto.caffe_pb2.SolverParameter.CPU,
    )
    solver = caffe.get_solver(written("rows_solver.prototxt", settings))
    fill(solver.net, hidden)
    solver.solve()
    accuracy = loss = 0
    for _ in range(2):
        found = solver.test_nets[0].forward()
        accuracy += float(found["accuracy"]) / 2
        loss += float(found["loss"]) / 2
    show("accuracy", accuracy)
    show("loss", loss, iterations=30)
    show("score", solver.net.params["score"][0].data, iterations=30)
    show("iter", solver.iter)
