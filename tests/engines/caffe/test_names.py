"""Names that are not UTF-8: trained by torch, refused by name where pycaffe would fail at them."""

import re
from pathlib import Path

import pytest

from pycaffe_prune.engines.caffe.engine import CaffeEngine
from pycaffe_prune.engines.run import train
from pycaffe_prune.errors import EngineError
from pycaffe_prune.formats.caffemodel import read_caffemodel
from pycaffe_prune.formats.text_bytes import text_of

LATIN, GBK = "größe".encode("latin-1"), "全连接".encode("gbk")


@pytest.mark.parametrize(
    ("layer", "blob", "told"),
    [
        (GBK, b"ip1", r"layer '.*' \(InnerProduct\): its name is not UTF-8, and pycaffe"),
        (b"ip1", LATIN, r"layer 'ip1' \(InnerProduct\): the name of its blob 'gr.*e' is not UTF-8"),
    ],
)
def test_names_in_other_encodings(
    tmp_path: Path, request_for, make_solver, torch_engine, layer: bytes, blob: bytes, told: str
) -> None:
    solver = make_solver()
    net = solver.parent / "net.prototxt"
    named = net.read_bytes().replace(b'name: "ip1"', b'name: "' + layer + b'"')
    net.write_bytes(re.sub(rb'(top|bottom): "ip1"', rb'\1: "' + blob + b'"', named))
    request = request_for(solver, max_iter=2)
    with pytest.raises(EngineError, match=told):
        train(request, tmp_path / "run", CaffeEngine(Path("/no-such-python")), lambda _: None)
    train(request, tmp_path / "run", torch_engine, lambda _: None)  # goes on in the same folder
    names = [one.name for one in read_caffemodel(tmp_path / "run" / "final.caffemodel").layers]
    assert text_of(layer) in names
    assert layer in (tmp_path / "run" / "final.caffemodel").read_bytes()
