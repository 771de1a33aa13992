import json
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner

from pycaffe_prune.cli.inspect.command import inspect
from pycaffe_prune.formats.caffe_pb2 import LayerParameter
from pycaffe_prune.formats.caffemodel import Caffemodel, Layer
from pycaffe_prune.formats.compressed.file import write_compressed


@pytest.fixture(scope="module")
def compressed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    draws = np.random.default_rng(3)
    shared = np.rint(draws.standard_normal((40, 50)) * 0.5).astype(np.float32)
    floats = draws.standard_normal((40, 50)).astype(np.float32)
    layer = Layer(LayerParameter(name="ip1", type="InnerProduct"), (shared, floats[0], floats))
    path = tmp_path_factory.mktemp("compressed") / "a.cpz"
    write_compressed(path, Caffemodel((layer,)))
    return path


def output(*arguments: Path | str) -> str:
    return CliRunner().invoke(inspect, [str(item) for item in arguments]).output


def test_each_byte_is_told_once(compressed: Path) -> None:
    (told,) = json.loads(output(compressed, "--storage", "--json"))
    assert told["path"] == str(compressed)
    rows = told["rows"]
    assert [row["blob"] for row in rows] == ["(definitions)", "ip1/0", "ip1/1", "ip1/2"]
    assert [row["values"] for row in rows] == [0, 2000, 50, 2000]
    assert all(sum(row["parts"].values()) == row["bytes"] for row in rows)
    assert sum(row["bytes"] for row in rows) == compressed.stat().st_size
    shared = rows[1]
    assert "codebook of" in shared["stored"]
    assert shared["parts"]["codebooks"] == 4 * int(shared["stored"].split()[-1])
    assert rows[3]["stored"].endswith("bytes of float32, coded")
    assert rows[2]["parts"]["floats"] >= 150


def test_the_table_is_shown_with_and_without_storage(compressed: Path) -> None:
    table = output(compressed, "--storage")
    assert table in output(compressed)
    assert "4,050 parameters" in output(compressed)
    assert f"{compressed}: {compressed.stat().st_size:,} bytes" in table
    assert table.splitlines()[1].split() == [
        *("blob", "stored", "values", "bits", "framing", "definitions", "positions"),
        *("codebooks", "codes", "floats", "tables", "bytes", "share", "%"),
    ]


def test_a_damaged_file_is_refused(compressed: Path, tmp_path: Path) -> None:
    (tmp_path / "bad.cpz").write_bytes(compressed.read_bytes()[:-3])
    result = CliRunner().invoke(inspect, [str(tmp_path / "bad.cpz"), "--storage"])
    assert result.exit_code == 1
    assert "bad.cpz: layer 'ip1', blob 2: ends 3 bytes too early" in str(result.exception)
