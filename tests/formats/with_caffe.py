"""What the tests here ask of the real Caffe; runs under Caffe's own Python, 3.6 or later.

with_caffe.py schema OUT                        its FileDescriptorProto
with_caffe.py upgrade IN.prototxt OUT           the net after its own V1 upgrade, binary
with_caffe.py load NET WEIGHTS OUT.npz          the parameters of a net with these weights
with_caffe.py save NET OUT.caffemodel OUT.npz   a fresh net's file, and its parameters
with_caffe.py train SOLVER STEPS RESTORE|- SNAPSHOT|- OUT.npz   iter and parameters after steps
"""

import ctypes
import sys
import types

import numpy as np

# caffe.io imports skimage to load image files, which nothing here does: 1.5 s saved a start.
for name in ("skimage", "skimage.io", "skimage.transform"):
    sys.modules[name] = types.ModuleType(name)
sys.modules["skimage.transform"].resize = None

import caffe  # noqa: E402 -- after the stand-ins
import caffe._caffe  # noqa: E402
from caffe.proto import caffe_pb2  # noqa: E402


def schema(out):
    with open(out, "wb") as file:  # noqa: PTH123 -- as plain as Python 3.6 needs it
        file.write(caffe_pb2.DESCRIPTOR.serialized_pb)


def upgrade(source, out):
    """Call libcaffe's functions of util/upgrade_proto.cpp, which pycaffe does not wrap."""
    library = ctypes.CDLL(caffe._caffe.__file__)  # its symbols include those of libcaffe
    nets = [ctypes.create_string_buffer(1 << 14) for _ in range(2)]
    for net in nets:
        if hasattr(library, "_ZN5caffe12NetParameterC1EPN6google8protobuf5ArenaE"):
            library._ZN5caffe12NetParameterC1EPN6google8protobuf5ArenaE(net, None)
        else:
            library._ZN5caffe12NetParameterC1Ev(net)
    old, new = nets
    read = library._ZN5caffe21ReadProtoFromTextFileEPKcPN6google8protobuf7MessageE
    read.restype = ctypes.c_bool
    assert read(source.encode(), old)
    library._ZN5caffe28UpgradeNetDataTransformationEPNS_12NetParameterE(old)
    library._ZN5caffe12UpgradeV1NetERKNS_12NetParameterEPS0_(old, new)
    library._ZN5caffe22WriteProtoToBinaryFileERKN6google8protobuf7MessageEPKc(new, out.encode())


def parameters(net):
    return {
        f"{name}:{index}": blob.data.copy()
        for name, blobs in net.params.items()
        for index, blob in enumerate(blobs)
    }


def load(net, weights, out):
    np.savez(out, **parameters(caffe.Net(net, weights, caffe.TEST)))


def save(net, weights, out):
    net = caffe.Net(net, caffe.TRAIN)
    net.save(weights)
    np.savez(out, **parameters(net))


def train(solver_path, steps, restore, snapshot, out):
    solver = caffe.SGDSolver(solver_path)
    if restore != "-":
        solver.restore(restore)
    restored_iter = solver.iter
    solver.step(int(steps))
    if snapshot != "-":
        solver.snapshot()
    np.savez(out, restored_iter=restored_iter, iter=solver.iter, **parameters(solver.net))


{"schema": schema, "upgrade": upgrade, "load": load, "save": save, "train": train}[sys.argv[1]](
    *sys.argv[2:]
)
