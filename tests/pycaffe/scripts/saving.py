"""Weights to files and back, as caffemodel and HDF5, by layers' names and between nets."""

import caffe
import numpy as np
from caffe import layers as L
from twin import fill, show, written


def small(first):
    n = caffe.NetSpec()
    n.data = L.Input(shape=dict(dim=[2, 3]))
    n[first] = L.InnerProduct(n.data, num_output=4)
    n.prelu = L.PReLU(n[first])
    n.last = L.InnerProduct(n.prelu, num_output=2, bias_term=False)
    return written(first + ".prototxt", n.to_proto())


one = caffe.Net(small("first"), caffe.TEST)
fill(one, 29)
one.blobs["data"].data[...] = np.random.RandomState(30).randn(2, 3)
show("one", one.forward()["last"])
one.save("saved.caffemodel")
one.save_hdf5("saved.h5")

for load in ("saved.caffemodel", "saved.h5"):
    two = caffe.Net(small("renamed"), caffe.TEST)
    for blobs in two.params.values():
        for blob in blobs:
            blob.data[...] = 0.5
    if load.endswith("h5"):
        two.load_hdf5(load)
    else:
        two.copy_from(load)
    two.blobs["data"].data[...] = one.blobs["data"].data
    show(load, two.forward()["last"])
    show("renamed", two.params["renamed"][0].data)
three = caffe.Net(small("first"), 1, weights="saved.caffemodel")
three.share_with(one)
one.params["first"][1].data[...] = 3
show("shared", three.params["first"][1].data)
three.blobs["data"].data[...] = 1
show("three", three.forward()["last"])
read = caffe.proto.caffe_pb2.NetParameter()
with open("saved.caffemodel", "rb") as file:
    read.ParseFromString(file.read())
show("layers", [layer.name for layer in read.layer])
show("blob", caffe.io.blobproto_to_array(read.layer[1].blobs[0]))
