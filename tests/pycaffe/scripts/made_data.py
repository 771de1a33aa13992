"""Layers that make data: MemoryData from arrays, DummyData whose constants are kept."""

import caffe
import numpy as np
from twin import show

NET = """
layer { name: 'data' type: 'MemoryData' top: 'data' top: 'label'
  memory_data_param { batch_size: 2 channels: 3 height: 2 width: 2 } }
layer { name: 'dummy' type: 'DummyData' top: 'zeros' top: 'sevens' top: 'drawn'
  dummy_data_param { shape { dim: 2 dim: 3 } shape { dim: 2 } shape { dim: 4 }
    data_filler { type: 'constant' } data_filler { type: 'constant' value: 7 }
    data_filler { type: 'uniform' min: 1 max: 2 } } }
layer { name: 'ip' type: 'InnerProduct' bottom: 'data' top: 'ip'
  inner_product_param { num_output: 3 weight_filler { type: 'constant' value: 0.5 } } }
layer { name: 'loss' type: 'EuclideanLoss' bottom: 'ip' bottom: 'zeros' top: 'loss' }
"""

with open("net.prototxt", "w") as file:
    file.write(NET)

net = caffe.Net("net.prototxt", caffe.TRAIN)
show("inputs", net.inputs)
show("outputs", net.outputs)
show("constants", [net.blobs["zeros"].data.tolist(), net.blobs["sevens"].data.tolist()])
data = np.arange(48, dtype=np.float32).reshape(4, 3, 2, 2) / 48
labels = np.arange(4, dtype=np.float32)
net.set_input_arrays(data, labels)
for batch in range(5):
    net.blobs["zeros"].data[...] = batch
    out = net.forward()
    show("label", out["label"])
    show("loss", out["loss"])
    show("constants", [net.blobs["zeros"].data.tolist(), net.blobs["sevens"].data.tolist()])
    drawn = out["drawn"]
    show("drawn", [bool((drawn >= 1).all()), bool((drawn <= 2).all())])
    net.backward()
    show("grads", [blob.diff.tolist() for blob in net.params["ip"]])
    data[0] += 1  # not a copy

for name, arrays in (
    ("layout", (data.transpose(0, 1, 3, 2), labels)),
    ("axes", (data[0], labels)),
    ("kind", (data.astype(float), labels)),
    ("channels", (data[:, :2].copy(), labels)),
    ("height", (data[:, :, :1].copy(), labels)),
    ("width", (data[:, :, :, :1].copy(), labels)),
    ("counts", (data, labels[:2])),
    ("batches", (data[:3], labels[:3])),
):
    try:
        net.set_input_arrays(*arrays)
    except RuntimeError as error:
        show("error " + name, str(error))
