"""Arrays that are given to a MemoryData layer, in the real Caffe and in ours."""

import os
import subprocess
from pathlib import Path

import numpy as np
from google.protobuf import text_format

from pycaffe_prune.engines.torch.net import Net
from pycaffe_prune.formats.caffe_pb2 import TEST, NetParameter
from pycaffe_prune.net.graph import NetState

NET = """
layer { name: "data" type: "MemoryData" top: "data" top: "label"
  memory_data_param { batch_size: 4 channels: 2 height: 3 width: 1 } }
layer { name: "half" type: "Power" bottom: "data" top: "half" power_param { scale: 0.5 } }
"""
SCRIPT = """
import numpy as np, caffe
caffe.set_mode_cpu()
net = caffe.Net("net.prototxt", caffe.TEST)
found = np.load("arrays.npz")
net.set_input_arrays(found["data"], found["labels"])
out = []
for _ in range(5):
    net.forward()
    out.append([net.blobs[name].data.copy() for name in ("half", "label")])
np.savez("out.npz", half=[pair[0] for pair in out], label=[pair[1] for pair in out])
"""


def test_batches_of_arrays_are_caffes(caffe_python: Path, tmp_path: Path) -> None:
    data = np.random.default_rng(0).random((12, 2, 3, 1)).astype(np.float32)
    labels = np.arange(12, dtype=np.float32)
    (tmp_path / "net.prototxt").write_text(NET)
    np.savez(tmp_path / "arrays.npz", data=data, labels=labels)
    subprocess.run(
        [caffe_python, "-c", SCRIPT],
        check=True,
        cwd=tmp_path,
        env={**os.environ, "GLOG_minloglevel": "2"},
    )
    net = Net(text_format.Parse(NET, NetParameter()), NetState(TEST))
    net.set_input_arrays(data, labels)
    with np.load(tmp_path / "out.npz") as theirs:
        for half, label in zip(theirs["half"], theirs["label"], strict=True):
            net.forward()
            np.testing.assert_array_equal(net.blobs["half"].data, half)
            # Caffe sets labels up as (4,) and makes them (4, 1, 1, 1) in its forward pass.
            np.testing.assert_array_equal(net.blobs["label"].data, label.reshape(4))
