"""What the tests here ask of the real Caffe; runs under Caffe's own Python, 3.6 or later.

with_caffe.py schema OUT                        its FileDescriptorProto
with_caffe.py upgrade FOLDER                    each *.prototxt there as *.upgraded, binary
with_caffe.py load NET WEIGHTS OUT.npz          the parameters of a net with these weights
with_caffe.py save NET OUT.caffemodel OUT.npz   a fresh net's file, and its parameters
with_caffe.py save_hdf5 NET OUT.h5 OUT.caffemodel OUT.npz   the same, in HDF5 as well
with_caffe.py blob IN.binaryproto OUT.npz       the array of a BlobProto
with_caffe.py train SOLVER STEPS RESTORE|- SNAPSHOT|- OUT.npz   iter and parameters after steps
"""

import ctypes
import sys
import types
from pathlib import Path

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


class StdString(ctypes.Structure):
    """What a std::string of libstdc++ looks like, enough to be read."""

    _fields_ = (
        ("data", ctypes.c_char_p),
        ("length", ctypes.c_size_t),
        ("rest", ctypes.c_char * 16),
    )


def upgrade(folder):
    """Call libcaffe's UpgradeNetAsNeeded (util/upgrade_proto.cpp), which pycaffe does not wrap."""
    library = ctypes.CDLL(caffe._caffe.__file__)  # its symbols include those of libcaffe
    read = library._ZN5caffe21ReadProtoFromTextFileEPKcPN6google8protobuf7MessageE
    read.restype = ctypes.c_bool
    as_needed = library[
        "_ZN5caffe18UpgradeNetAsNeededERKNSt7__cxx1112basic_stringIcSt11char_traitsIcESaIcEEE"
        "PNS_12NetParameterE"
    ]
    for source in sorted(Path(folder).glob("*.prototxt")):
        net = ctypes.create_string_buffer(1 << 14)
        if hasattr(library, "_ZN5caffe12NetParameterC1EPN6google8protobuf5ArenaE"):
            library._ZN5caffe12NetParameterC1EPN6google8protobuf5ArenaE(net, None)
        else:
            library._ZN5caffe12NetParameterC1Ev(net)
        name = str(source).encode()
        assert read(name, net), source
        as_needed(ctypes.byref(StdString(name, len(name))), net)
        out = str(source.with_suffix(".upgraded")).encode()
        library._ZN5caffe22WriteProtoToBinaryFileERKN6google8protobuf7MessageEPKc(net, out)


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


def save_hdf5(net, hdf5, weights, out):
    net = caffe.Net(net, caffe.TRAIN)
    net.save_hdf5(hdf5)
    net.save(weights)
    np.savez(out, **parameters(net))


def blob(source, out):
    message = caffe_pb2.BlobProto()
    with open(source, "rb") as file:  # noqa: PTH123 -- as plain as Python 3.6 needs it
        message.ParseFromString(file.read())
    np.savez(out, blob=caffe.io.blobproto_to_array(message))


def train(solver_path, steps, restore, snapshot, out):
    solver = caffe.SGDSolver(solver_path)
    if restore != "-":
        solver.restore(restore)
    restored_iter = solver.iter
    solver.step(int(steps))
    if snapshot != "-":
        solver.snapshot()
    np.savez(out, restored_iter=restored_iter, iter=solver.iter, **parameters(solver.net))


TASKS = (schema, upgrade, load, save, save_hdf5, blob, train)
{task.__name__: task for task in TASKS}[sys.argv[1]](*sys.argv[2:])
