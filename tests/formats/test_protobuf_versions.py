import os
import subprocess
import sys
from pathlib import Path

import pytest

VARIABLE = "PYCAFFE_PRUNE_TEST_PROTOBUF"

pytestmark = pytest.mark.skipif(
    os.environ.get(VARIABLE) != "1",
    reason=f"{VARIABLE}=1 is not set: installs several versions of protobuf from a package index",
)

ROUND_TRIP = """
import sys
from pathlib import Path
import google.protobuf
import numpy as np
from pycaffe_prune.errors import FormatError
from pycaffe_prune.formats.caffe_pb2 import (
    LayerParameter, NetParameter, Phase, TEST, V1LayerParameter
)
from pycaffe_prune.formats.caffemodel import Caffemodel, Layer, read_caffemodel, write_caffemodel
from pycaffe_prune.formats.carried import carried_fields
from pycaffe_prune.formats.prototxt import read_net, write_prototxt
from pycaffe_prune.formats.solverstate import Solverstate, read_solverstate, write_solverstate

folder = Path(sys.argv[1])
assert google.protobuf.__file__.startswith(str(folder)), google.protobuf.__file__
assert Phase.Value("TEST") == TEST

layer = LayerParameter(name="ip", type="InnerProduct", phase=TEST)
layer.inner_product_param.num_output = 3
weights = np.arange(6, dtype=np.float32).reshape(3, 2)
write_caffemodel(folder / "a", Caffemodel((Layer(layer, (weights,)),), NetParameter(name="n")))
model = read_caffemodel(folder / "a")
assert model.layer("ip").param == layer and model.net.name == "n"
assert np.array_equal(model.layer("ip").blobs[0], weights)

write_prototxt(folder / "net", NetParameter(name="n", layer=[layer]))
assert list(read_net(folder / "net").layer) == [layer]
(folder / "old").write_text('layers { name: "ip" type: INNER_PRODUCT blobs_lr: 2 }')
(new,) = read_net(folder / "old").layer
assert new.type == "InnerProduct" and new.param[0].lr_mult == 2

write_solverstate(folder / "s", Solverstate(5, "a", (weights,), 1))
assert read_solverstate(folder / "s").iteration == 5

(folder / "latin1").write_bytes(bytes.fromhex("a206080a02fffea24b0161"))
write_caffemodel(folder / "again", read_caffemodel(folder / "latin1"))
assert (folder / "again").read_bytes() == (folder / "latin1").read_bytes()

(folder / "fork").write_text('layer { name: "a" fork { x: "}" } phase: FORK param { y: 1 } }')
(forked,) = read_net(folder / "fork").layer
names = ["fork", "phase", "param.y"]
assert [field.full_name for field in carried_fields(forked)] == names
write_prototxt(folder / "net", NetParameter(layer=[forked]))
assert list(read_net(folder / "net").layer) == [forked]
write_caffemodel(folder / "c", Caffemodel((Layer(forked, ()),), NetParameter()))
assert not carried_fields(read_caffemodel(folder / "c").layer("a").param)

cut, no_layer = "a206020a07", "1203616263"
for damaged in map(bytes.fromhex, (cut, no_layer)):
    (folder / "bad").write_bytes(damaged)
    try:
        read_caffemodel(folder / "bad")
    except FormatError:
        continue
    raise AssertionError(damaged)
print(google.protobuf.__version__)
"""


@pytest.mark.parametrize("implementation", ["upb", "python"])
@pytest.mark.parametrize("version", ["==4.21.12", "==5.29.5", "==6.33.0", ""])
def test_files_are_read_and_written_with_this_protobuf(
    tmp_path: Path, version: str, implementation: str
) -> None:
    subprocess.run(
        [
            *(sys.executable, "-m", "pip", "install", "--quiet", "--no-deps"),
            *("--disable-pip-version-check", "--target", str(tmp_path), f"protobuf{version}"),
        ],
        check=True,
    )
    environment = {
        **os.environ,
        "PYTHONPATH": str(tmp_path),
        "PROTOCOL_BUFFERS_PYTHON_IMPLEMENTATION": implementation,
    }
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", ROUND_TRIP, str(tmp_path)],
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip() == (version.removeprefix("==") or done.stdout.strip())
