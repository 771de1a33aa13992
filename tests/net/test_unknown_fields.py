"""Fields that stock Caffe does not know are told with file, line, layer and what was meant."""

from pathlib import Path

import pytest

from pycaffe_prune.errors import FormatError
from pycaffe_prune.formats.prototxt import read_net, read_solver, refuse_carried
from pycaffe_prune.net.unknown_fields import unknown_fields

NET = """name: "n"
layer { name: "a" type: "Convolution" bottom: "x" top: "a"
  convolution_param { num_output: 2
    kernal_size: 3 } }
layer { name: "b" type: "Pooling" bottom: "a" top: "b"
  pooling_param { pool: MAXX ceil_mode: true kernel_size: 2 kernel_size: 3 } }
layer { name: "c" type: "Convolution" bottom: "b" top: "c"
  convolution_param { num_output: 2 kernal_size: 3 } }
layer { name: "d" type: "Permute" bottom: "c" top: "d" permute_param { order: 0 } }
forse_backward: true
"""
TWICE = "(which stands there twice)"
TAIL = "which stock Caffe does not know, is carried without its meaning"


def test_each_kind_is_told_once_where_it_stands_first(tmp_path: Path) -> None:
    path = tmp_path / "net.prototxt"
    path.write_text(NET)
    assert unknown_fields(read_net(path), path) == [
        (
            f"{path}:4: layer 'a': the field 'convolution_param.kernal_size' (did you mean "
            f"'kernel_size'?) of Convolution, {TAIL}; so in 1 more layers"
        ),
        (
            f"{path}:6: layer 'b': the field 'pooling_param.pool: MAXX' (did you mean 'MAX'?) of "
            f"Pooling, {TAIL}"
        ),
        (
            f"{path}:6: layer 'b': the field 'pooling_param.kernel_size: 3' {TWICE} "
            f"of Pooling, {TAIL}"
        ),
        (
            f"{path}:10: the field 'forse_backward' (did you mean 'force_backward'?) of the net, "
            f"{TAIL}"
        ),
    ]


def test_many_kinds_are_counted(tmp_path: Path) -> None:
    path = tmp_path / "net.prototxt"
    path.write_text('layer { name: "a" ' + " ".join(f"fork{n}: 1" for n in "abcdefg") + " }")
    *told, last = unknown_fields(read_net(path), path)
    assert len(told) == 5
    assert last == f"{path}: 2 more such fields"


MISSPELT_LAYER = 'name: "n"\nlayr { }'


@pytest.mark.parametrize(("text", "place"), [(NET, r":4: layer 'a' \(Conv"), (MISSPELT_LAYER, "")])
def test_what_needs_all_meanings_names_the_line(tmp_path: Path, text: str, place: str) -> None:
    path = tmp_path / "net.prototxt"
    path.write_text(text)
    told = rf"{path}{place}.*'(convolution_param.kernal_size|layr)' \(did you mean"
    with pytest.raises(FormatError, match=told):
        refuse_carried(read_net(path), path, "a test")


def test_a_solver_s_slips_have_their_lines_too(tmp_path: Path) -> None:
    path = tmp_path / "solver.prototxt"
    path.write_text("base_lr: 0.1\n\nmomentun: 0.9\n")
    with pytest.raises(FormatError, match=r"prototxt:3: has the field 'momentun' \(did you mean"):
        refuse_carried(read_solver(path), path, "training")
