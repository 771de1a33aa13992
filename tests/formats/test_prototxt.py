from pathlib import Path

import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from pycaffe_prune.errors import FormatError
from pycaffe_prune.formats.caffe_pb2 import (
    NetParameter,
    PoolingParameter,
    SolverParameter,
)
from pycaffe_prune.formats.prototxt import (
    read_net,
    read_solver,
    refuse_carried,
    write_prototxt,
)

# The folder is the same for all examples: each one writes its file anew.
one_folder = settings(suppress_health_check=[HealthCheck.function_scoped_fixture])

floats = st.floats(width=32, allow_nan=False)


@st.composite
def nets(draw: st.DrawFn) -> NetParameter:
    net = NetParameter(name=draw(st.text()))
    for _ in range(draw(st.integers(1, 3))):
        layer = net.layer.add(name=draw(st.text()), type=draw(st.text()))
        layer.bottom.extend(draw(st.lists(st.text(), max_size=2)))
        layer.loss_weight.extend(draw(st.lists(floats, max_size=2)))
        layer.pooling_param.pool = draw(st.sampled_from(PoolingParameter.PoolMethod.values()))
        layer.lrn_param.alpha = draw(floats)
        layer.param.add(lr_mult=draw(floats))
    return net


@pytest.mark.usefixtures("no_fsync")
@one_folder
@given(net=nets())
def test_a_net_written_is_read_back(tmp_path: Path, net: NetParameter) -> None:
    write_prototxt(tmp_path / "net.prototxt", net)
    assert read_net(tmp_path / "net.prototxt") == net


@pytest.mark.usefixtures("no_fsync")
@one_folder
@given(net=st.text(), rate=floats, steps=st.lists(st.integers(0, 2**31 - 1)), kind=st.text())
def test_a_solver_written_is_read_back(
    tmp_path: Path, net: str, rate: float, steps: list[int], kind: str
) -> None:
    solver = SolverParameter(net=net, base_lr=rate, stepvalue=steps, type=kind)
    write_prototxt(tmp_path / "solver.prototxt", solver)
    assert read_solver(tmp_path / "solver.prototxt") == solver


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("base_lr: 0.1", r"1:1 : .*base_lr.*; a net prototxt is needed"),
        ("name: 'n' base_lr: 0.1", "holds no layer; a net prototxt .*does not know 'base_lr'"),
        ("layer {\n name: 'x'\n  type }", r"3:8 : "),
        ("layer { name: 'x' ", r"1:\d+ : "),
        ("layer { pooling_param {\n pad: few } }", r"2:\d+ : .*few"),
        ("layer { fork: 1\n  pooling_param {\n pad: few } }", r"3:7 : .*few"),
        ("layer { lrn_param { alpha: 'one' } }", r"1:\d+ : "),
        ("layer { name: 'c' clip_param { min: 1 } }", r".*clip_param\.max; a net prototxt"),
        ("name: 'only'", "holds no layer; a net prototxt is needed"),
        ("", "holds no layer"),
        ("layer {} layers {}", "holds both 'layer' and 'layers'"),
        ("layers { layer { name: 'c' type: 'fold' } }", "layer 'c' has the type 'fold'"),
        ("layers { name: 'c' }", "layer 'c' has no type that Caffe knows"),
        ("input: 'a' input_dim: 1 layer {}", "has 1 inputs but dimensions of 0"),
    ],
)
def test_what_is_wrong_in_a_net_is_told_with_its_place(
    tmp_path: Path, text: str, sentence: str
) -> None:
    path = tmp_path / "bad.prototxt"
    path.write_text(text)
    with pytest.raises(FormatError, match=f"^{path}: ?{sentence}"):
        read_net(path)


def test_what_is_wrong_in_a_solver_is_told_with_its_place(tmp_path: Path) -> None:
    path = tmp_path / "solver.prototxt"
    path.write_text("base_lr: 0.1\nmomentum: high")
    with pytest.raises(FormatError, match=f"^{path}:2:11 : .*; a solver prototxt is needed$"):
        read_solver(path)


def test_what_is_no_text_is_refused_with_the_byte(tmp_path: Path) -> None:
    path = tmp_path / "net.prototxt"
    path.write_bytes(b"\x0a\x03abc\xa2\x06\xff\x00")
    with pytest.raises(FormatError, match=f"^{path}: is not text .byte 8.; a net prototxt"):
        read_net(path)


CASES = Path(__file__).parents[1] / "cases"


@pytest.mark.parametrize("name", ["gbk", "latin1name"])
def test_strings_that_are_not_utf8_are_written_as_they_were(tmp_path: Path, name: str) -> None:
    source = CASES / f"{name}.prototxt"
    net = read_net(source)
    assert net.layer[-1].type == "Convolution"
    path = tmp_path / "again.prototxt"
    write_prototxt(path, net)
    assert read_net(path) == net
    (line,) = (line for line in source.read_bytes().split(b"\n") if line.startswith(b"name:"))
    assert line.split(b" #")[0] in path.read_bytes().split(b"\n")


def test_a_solver_may_be_refused_for_what_it_carries(tmp_path: Path) -> None:
    path = tmp_path / "solver.prototxt"
    path.write_text("base_lr: 0.1 momentun: 0.9 net_param { layer { name: 'a' top: 'b' fork: 1 } }")
    solver = read_solver(path)
    with pytest.raises(FormatError, match=r"layer 'a' .* the field 'fork', .*; training needs"):
        refuse_carried(solver, path, "training")
    solver.ClearField("net_param")
    with pytest.raises(FormatError, match=r"'momentun' \(did you mean 'momentum'\?\)"):
        refuse_carried(solver, path, "training")
    refuse_carried(SolverParameter(base_lr=0.1), path, "training")


def test_a_missing_file_and_a_folder_are_named(tmp_path: Path) -> None:
    with pytest.raises(FormatError, match=f"^{tmp_path}/none: no such file; a net prototxt"):
        read_net(tmp_path / "none")
    with pytest.raises(FormatError, match=f"^{tmp_path}: is a folder; a solver prototxt"):
        read_solver(tmp_path)


@pytest.mark.usefixtures("no_fsync")
@one_folder
@example(text="0\r-")
@given(text=st.text() | st.text("layer{}[]<>:'\"\\0x-1.e#,;/ \n"))
def test_any_text_is_read_or_refused(tmp_path: Path, text: str) -> None:
    path = tmp_path / "any.prototxt"
    path.write_text(text, encoding="utf-8")
    for read in (read_net, read_solver):
        try:
            read(path)
        except FormatError as error:
            sentence = str(error)
        else:
            sentence = str(path)
        assert sentence.startswith(str(path))


@pytest.mark.parametrize("opening", ["layer {", "[", "layer [", "net_param { layer {"])
def test_deep_nesting_is_refused(tmp_path: Path, opening: str) -> None:
    path = tmp_path / "deep.prototxt"
    path.write_text(opening * 100_000)
    with pytest.raises(FormatError, match=f"^{path}:1:"):
        read_net(path)


def test_v1_text_comes_upgraded(tmp_path: Path) -> None:
    path = tmp_path / "old.prototxt"
    path.write_text("""
        layers { name: "ip" type: INNER_PRODUCT blobs_lr: 1 blobs_lr: 2 weight_decay: 0
                 bottom: "data" top: "ip" inner_product_param { num_output: 3 } }
        layers { name: "loss" type: SOFTMAX_LOSS bottom: "ip" bottom: "label" }
    """)
    net = read_net(path)
    assert not net.layers
    assert [layer.type for layer in net.layer] == ["InnerProduct", "SoftmaxWithLoss"]
    assert [spec.lr_mult for spec in net.layer[0].param] == [1, 2]
    assert net.layer[0].param[0].decay_mult == 0
    assert net.layer[0].inner_product_param.num_output == 3


def test_v0_text_comes_upgraded(tmp_path: Path) -> None:
    path = tmp_path / "older.prototxt"
    path.write_text("""
        input: "data" input_dim: 1 input_dim: 3 input_dim: 8 input_dim: 8
        layers { layer { name: "pad" type: "padding" pad: 1 } bottom: "data" top: "pad" }
        layers { layer { name: "conv" type: "conv" num_output: 4 kernelsize: 3 blobs_lr: 2 }
                 bottom: "pad" top: "conv" }
    """)
    net = read_net(path)
    assert not net.layers
    assert [layer.type for layer in net.layer] == ["Input", "Convolution"]
    assert list(net.layer[1].bottom) == ["data"]
    assert list(net.layer[1].convolution_param.pad) == [1]
    assert net.layer[1].param[0].lr_mult == 2


def test_inputs_of_a_net_come_as_an_input_layer(tmp_path: Path) -> None:
    path = tmp_path / "deploy.prototxt"
    path.write_text("""
        input: "data" input_shape { dim: 2 dim: 5 }
        layer { name: "ip" type: "InnerProduct" bottom: "data" top: "ip" }
    """)
    net = read_net(path)
    assert not net.input
    assert [(layer.name, layer.type) for layer in net.layer] == [
        ("input", "Input"),
        ("ip", "InnerProduct"),
    ]
    assert list(net.layer[0].top) == ["data"]
    assert list(net.layer[0].input_param.shape[0].dim) == [2, 5]
