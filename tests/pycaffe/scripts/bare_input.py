"""An Input layer that states no shape: its tops have none before they are reshaped."""

import caffe
import numpy as np
from twin import show

NET = """
layer { name: "data" type: "Input" top: "data" }
layer { name: "power" type: "Power" bottom: "data" top: "power" power_param { scale: 2 } }
layer { name: "relu" type: "ReLU" bottom: "power" top: "power" }
"""

with open("net.prototxt", "w") as file:
    file.write(NET)
net = caffe.Net("net.prototxt", caffe.TEST)
show("inputs", net.inputs)
show("shapes", [list(blob.shape) for blob in net.blobs.values()])
net.blobs["data"].reshape(2, 3)
net.reshape()
show("reshaped", [list(blob.shape) for blob in net.blobs.values()])
values = np.arange(6).reshape(2, 3) - 2.5
show("power", net.forward(data=values)["power"])
net.blobs["data"].reshape(4)
show("another", net.forward(data=values.flatten()[:4])["power"])

with open("two.prototxt", "w") as file:
    file.write(
        'layer { name: "in" type: "Input" top: "a" top: "b" input_param { shape { dim: 2 } } }\n'
        'layer { name: "sum" type: "Eltwise" bottom: "a" bottom: "b" top: "sum" }'
    )
two = caffe.Net("two.prototxt", caffe.TEST)
show("one shape for two", [list(blob.shape) for blob in two.blobs.values()])
show("their sum", two.forward(a=np.ones(2), b=np.arange(2))["sum"])
