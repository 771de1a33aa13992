from pathlib import Path

import numpy as np
import onnx
import pytest
from click.testing import CliRunner, Result
from google.protobuf import text_format
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from pycaffe_prune.cli.convert.command import convert
from pycaffe_prune.cli.convert.formats import ENDINGS, FORMATS, holds_text
from pycaffe_prune.engines.caffe.engine import CaffeEngine
from pycaffe_prune.errors import PruneError
from pycaffe_prune.formats.caffe_pb2 import LayerParameter, NetParameter, V1LayerParameter
from pycaffe_prune.formats.caffemodel import Caffemodel, Layer, read_caffemodel, write_caffemodel
from pycaffe_prune.formats.carried import carried_fields
from pycaffe_prune.formats.files import sha256_of
from pycaffe_prune.formats.mask import read_mask
from pycaffe_prune.formats.mean import read_mean, write_mean
from pycaffe_prune.formats.prototxt import read_net
from pycaffe_prune.formats.weights import read_weights, write_weights
from pycaffe_prune.pruning.connections import nonzero_where_masked
from pycaffe_prune.share import share_root

NET = """
name: "small"
layer { name: "images" type: "Data" top: "data" top: "label" include { phase: TRAIN }
  transform_param { scale: 0.5 } data_param { source: "train_lmdb" batch_size: 4 } }
layer { name: "images" type: "Data" top: "data" top: "label" include { phase: TEST }
  transform_param { scale: 0.5 } data_param { source: "test_lmdb" batch_size: 4 } }
layer { name: "ip1" type: "InnerProduct" bottom: "data" top: "ip1" param { lr_mult: 1 }
  param { lr_mult: 2 } inner_product_param { num_output: 20 weight_filler { type: "xavier" } } }
layer { name: "relu1" type: "ReLU" bottom: "ip1" top: "ip1" }
layer { name: "drop1" type: "Dropout" bottom: "ip1" top: "ip1" }
layer { name: "ip2" type: "InnerProduct" bottom: "ip1" top: "ip2"
  inner_product_param { num_output: 10 } }
layer { name: "loss" type: "SoftmaxWithLoss" bottom: "ip2" bottom: "label" top: "loss" }
"""
INPUT = ("--input-shape", "data=1x1x5x6")


def random_model() -> Caffemodel:
    random = np.random.default_rng(0)
    layers, inputs = [], 30
    for layer in text_format.Parse(NET, NetParameter()).layer:
        blobs = []
        if layer.type == "InnerProduct":
            units = layer.inner_product_param.num_output
            blobs = [
                random.normal(size=shape).astype(np.float32)
                for shape in ((units, inputs), (units,))
            ]
            blobs[0][np.abs(blobs[0]) < 1] = 0
            inputs = units
        if not layer.include or layer.include[0].phase == 0:
            layers.append(Layer(layer, tuple(blobs)))
    return Caffemodel(tuple(layers), NetParameter(name="small"))


@pytest.fixture
def net(tmp_path: Path) -> Path:
    path = tmp_path / "train_val.prototxt"
    path.write_text(NET)
    return path


@pytest.fixture
def weights(tmp_path: Path) -> Path:
    path = tmp_path / "final.caffemodel"
    write_caffemodel(path, random_model())
    return path


def run(*arguments: object) -> Result:
    return CliRunner().invoke(convert, [str(item) for item in arguments])


def done(*arguments: object) -> Result:
    result = run(*arguments)
    assert result.exit_code == 0, f"{result.output} {result.exception}"
    return result


@given(st.text(max_size=30), st.text(max_size=30))
@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=50)
def test_nets_are_text_and_weights_of_any_form_are_not(
    tmp_path: Path, name: str, layer_name: str
) -> None:
    net = NetParameter(name=name)
    layer = net.layer.add(name=layer_name, type="InnerProduct")
    text = tmp_path / "net.prototxt"
    text.write_text(text_format.MessageToString(net))
    assert holds_text(text)
    model = Caffemodel((Layer(layer, (np.ones((2, 3), np.float32),)),), NetParameter(name=name))
    write_caffemodel(tmp_path / "w.caffemodel", model)
    assert not holds_text(tmp_path / "w.caffemodel")
    if "/" not in layer_name and layer_name.strip(". ") and "\0" not in layer_name:
        for ending in ("h5", "npz", "sparse.npz", "safetensors"):
            path = tmp_path / f"w.{ending}"
            write_weights(path, model)
            assert not holds_text(path)


def names_in(folder: Path) -> set[str]:
    return {str(path.relative_to(folder)) for path in folder.rglob("*")}


def require_equal(found: Caffemodel, expected: Caffemodel) -> None:
    first, second = dict(found.blobs()), dict(expected.blobs())
    assert set(first) == set(second)
    for place, blob in first.items():
        np.testing.assert_array_equal(blob, second[place])


@pytest.mark.parametrize(
    "ending", [".caffemodel", ".caffemodel.h5", ".h5", ".npz", ".sparse.npz", ".safetensors"]
)
def test_weights_of_every_form_come_back_exactly(
    net: Path, weights: Path, tmp_path: Path, ending: str
) -> None:
    other, back = tmp_path / f"other{ending}", tmp_path / "back.caffemodel"
    result = done(weights, "--out", other)
    assert result.stdout == (
        f"written: {other}, {other.stat().st_size:,} bytes\n"
        f"from:    {weights}, {weights.stat().st_size:,} bytes\n"
    )
    require_equal(read_weights(other), random_model())
    done(other, "--net", net, "--out", back)
    assert back.read_bytes() == weights.read_bytes()


def test_an_ending_tells_the_format_and_to_overrules_it(weights: Path, tmp_path: Path) -> None:
    assert set(ENDINGS.values()) == set(FORMATS) - {"deploy", "stock"}
    done(weights, "--out", tmp_path / "x.bin", "--to", "npz")
    assert (tmp_path / "x.bin").read_bytes().startswith(b"PK")
    result = run(weights, "--out", tmp_path / "y.bin")
    assert result.exit_code == 2
    assert "tells no format; give --to" in result.output


def test_the_sparse_form_of_pruned_weights_comes_back_byte_for_byte(
    data_dir: Path, tmp_path: Path
) -> None:
    source = data_dir / "zoo" / "squeezenet" / "squeezenet_v1.0_pruned.caffemodel"
    sparse, back = tmp_path / "s.sparse.npz", tmp_path / "back.caffemodel"
    done(source, "--out", sparse)
    assert sparse.stat().st_size < 0.5 * source.stat().st_size
    done(sparse, "--out", back)
    assert back.read_bytes() == source.read_bytes()


def test_a_v1_net_and_its_weights_are_upgraded(tmp_path: Path) -> None:
    old = tmp_path / "v1.prototxt"
    old.write_text(
        'name: "old" input: "data" input_dim: 1 input_dim: 1 input_dim: 5 input_dim: 6 '
        'layers { name: "ip1" type: INNER_PRODUCT bottom: "data" top: "ip1" blobs_lr: 1 '
        "blobs_lr: 2 weight_decay: 1 weight_decay: 0 inner_product_param { num_output: 20 } }"
    )
    done(old, "--out", tmp_path / "v2.prototxt")
    new = read_net(tmp_path / "v2.prototxt")
    assert [layer.type for layer in new.layer] == ["Input", "InnerProduct"]
    assert [(spec.lr_mult, spec.decay_mult) for spec in new.layer[1].param] == [(1, 1), (2, 0)]
    binary = NetParameter(name="old")
    layer = binary.layers.add(name="ip1", type=V1LayerParameter.INNER_PRODUCT)
    values = np.arange(40, dtype=np.float32)
    layer.blobs.add(num=1, channels=1, height=2, width=20, data=values)
    layer.blobs.add(num=1, channels=1, height=1, width=2, data=[1, 2])
    (tmp_path / "v1.caffemodel").write_bytes(binary.SerializeToString())
    done(tmp_path / "v1.caffemodel", "--out", tmp_path / "v2.caffemodel")
    parsed = NetParameter.FromString((tmp_path / "v2.caffemodel").read_bytes())
    assert not parsed.layers
    assert parsed.layer[0].type == "InnerProduct"
    assert [list(blob.shape.dim) for blob in parsed.layer[0].blobs] == [[2, 20], [2]]
    assert list(parsed.layer[0].blobs[0].data) == list(values)


def test_a_train_val_net_becomes_a_deploy_net(net: Path, weights: Path, tmp_path: Path) -> None:
    by_net, by_weights = tmp_path / "a.prototxt", tmp_path / "b.prototxt"
    result = done(net, "--to", "deploy", *INPUT, "--out", by_net)
    assert "'images' prepared the images with { scale: 0.5 }" in result.stderr
    done(weights, "--to", "deploy", *INPUT, "--out", by_weights)
    assert read_net(by_net) == read_net(by_weights)
    assert [layer.type for layer in read_net(by_net).layer] == [
        "Input", "InnerProduct", "ReLU", "Dropout", "InnerProduct", "Softmax"
    ]  # fmt: skip
    done(net, "--to", "deploy", "--strip", *INPUT, "--out", by_net)
    assert "Dropout" not in by_net.read_text()


@pytest.mark.real_caffe
def test_a_stripped_model_is_smaller_and_computes_the_same_in_caffe(
    net: Path, weights: Path, tmp_path: Path, caffe_python: Path
) -> None:
    deploy, small, hdf5 = (
        tmp_path / name for name in ("d.prototxt", "s.caffemodel", "s.caffemodel.h5")
    )
    done(net, "--to", "deploy", *INPUT, "--out", deploy)
    done(weights, "--strip", "--out", small)
    done(small, "--out", hdf5)
    assert small.stat().st_size < weights.stat().st_size
    images = {"data": np.random.default_rng(1).normal(size=(3, 1, 5, 6)).astype(np.float32)}
    engine = CaffeEngine(caffe_python)
    before, after, again = (
        engine.forward(deploy, path, images, ["prob"])[0] for path in (weights, small, hdf5)
    )
    np.testing.assert_array_equal(after, before)
    np.testing.assert_array_equal(again, before)


def test_what_stripping_leaves_out_is_told(net: Path, weights: Path, tmp_path: Path) -> None:
    model = read_caffemodel(weights)
    extra = Layer(text_format.Parse(NET, NetParameter()).layer[2], model.layer("ip1").blobs)
    extra.param.name = "aux"
    more = tmp_path / "more.caffemodel"
    write_caffemodel(more, Caffemodel((*model.layers, extra), model.net))
    result = done(more, "--net", net, "--strip", "--out", tmp_path / "s.caffemodel")
    assert result.stderr == "left out, since the net does not need them: aux\n"
    require_equal(read_caffemodel(tmp_path / "s.caffemodel"), model)


def test_onnx_comes_from_the_weights_alone_or_with_their_net(
    net: Path, weights: Path, tmp_path: Path
) -> None:
    done(weights, *INPUT, "--out", tmp_path / "a.onnx")
    done(weights, "--net", net, *INPUT, "--out", tmp_path / "b.onnx")
    assert (tmp_path / "a.onnx").read_bytes() == (tmp_path / "b.onnx").read_bytes()
    onnx.checker.check_model(onnx.load(str(tmp_path / "a.onnx")), full_check=True)


def test_a_new_classifier_leaves_a_net_and_weights_without_the_old_one(
    net: Path, weights: Path, tmp_path: Path
) -> None:
    out = tmp_path / "flowers"
    done(weights, "--net", net, "--classifier", "ip2=ip2_flowers:102", "--out", out)
    assert names_in(out) == {"net.prototxt", "final.caffemodel"}
    layer = read_net(out / "net.prototxt").layer[5]
    assert (layer.name, layer.inner_product_param.num_output) == ("ip2_flowers", 102)
    left = {name for (name, _), _ in read_caffemodel(out / "final.caffemodel").blobs()}
    assert left == {"ip1"}
    alone = tmp_path / "alone.prototxt"
    done(net, "--classifier", "ip2=ip2_flowers:102", "--out", alone)
    assert read_net(alone) == read_net(out / "net.prototxt")


@pytest.mark.parametrize("ending", [".caffemodel", ".prototxt"])
def test_out_may_name_one_of_the_two_files_of_a_new_classifier(
    net: Path, weights: Path, tmp_path: Path, ending: str
) -> None:
    words = ("--net", net, "--classifier", "ip2=ip2_flowers:102", "--out")
    done(weights, *words, tmp_path / "new" / f"flowers.v2{ending}")
    assert names_in(tmp_path / "new") == {"flowers.v2.prototxt", "flowers.v2.caffemodel"}
    versioned = tmp_path / "model.v2.caffemodel"
    versioned.write_bytes(weights.read_bytes())
    done(versioned, *words, tmp_path / "folder")
    assert names_in(tmp_path / "folder") == {"net.prototxt", "model.v2.caffemodel"}
    done(net, "--classifier", "ip2=ip2_flowers:102", "--out", tmp_path / "alone")
    assert names_in(tmp_path / "alone") == {"net.prototxt"}


CASES = Path(__file__).parents[2] / "cases"


def test_the_cases_of_deploy_and_classifier_are_right_or_one_sentence(tmp_path: Path) -> None:
    out = tmp_path / "d.prototxt"
    staged = (CASES / "stages_deploy.prototxt", "--to", "deploy", "--out", out)
    result = run(*staged)
    assert result.exit_code == 1
    assert "'ip' (InnerProduct) reads the blob 'data'" in str(result.exception)
    assert not out.exists()
    done(*staged, "--input-shape", "data=1x1x8x8")
    assert [layer.type for layer in read_net(out).layer] == ["Input", "InnerProduct", "Softmax"]
    told = done(CASES / "bn_global_stats.prototxt", "--to", "deploy", "--out", out)
    assert "'bn' has use_global_stats: false" in told.stderr
    assert "use_global_stats" not in out.read_text()
    result = run(
        *(CASES / "classifier_eltwise.caffemodel", "--net", CASES / "classifier_eltwise.prototxt"),
        *("--classifier", "c=c_new:5", "--out", tmp_path / "new"),
    )
    assert result.exit_code == 1
    assert "'c' is no output: layer 's' (Eltwise)" in str(result.exception)
    assert not (tmp_path / "new").exists()


def test_mean_images_come_back_exactly(tmp_path: Path) -> None:
    mean = np.random.default_rng(2).random((3, 4, 5), np.float32)
    source, npy, back = (tmp_path / name for name in ("m.binaryproto", "m.npy", "b.binaryproto"))
    write_mean(source, mean)
    done(source, "--out", npy)
    np.testing.assert_array_equal(np.load(npy, allow_pickle=False), mean)
    done(npy, "--out", back)
    assert back.read_bytes() == source.read_bytes()
    np.testing.assert_array_equal(read_mean(back), mean)


COMMANDS = [
    ("{weights}", "--out", "x.caffemodel.h5"),
    ("{weights}", "--strip", "--out", "x.caffemodel"),
    ("{net}", "--to", "deploy", *INPUT, "--out", "deploy.prototxt"),
    ("{weights}", *INPUT, "--out", "x.onnx"),
    ("{weights}", "--net", "{net}", "--classifier", "ip2=new:5", "--out", "folder"),
]


@pytest.mark.parametrize("command", COMMANDS)
def test_a_dry_run_names_the_files_and_writes_none(
    net: Path,
    weights: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    command: tuple[str, ...],
) -> None:
    monkeypatch.chdir(tmp_path)
    arguments = [part.format(net=net, weights=weights) for part in command]
    before = names_in(tmp_path)
    would = done(*arguments, "--dry-run").stdout.splitlines()
    assert names_in(tmp_path) == before
    done(*arguments)
    written = {line.removeprefix("would write ") for line in would if line.startswith("would")}
    assert written == {name for name in names_in(tmp_path) - before if (tmp_path / name).is_file()}


def make_bad_files(folder: Path) -> None:
    model = random_model()
    wrong = {("ip1", 0): np.ones((20, 31), np.float32)}
    write_caffemodel(folder / "wrong_shape.caffemodel", model.with_blobs(wrong))
    nan = model.layer("ip2").blobs[0].copy()
    nan[0, 0] = np.nan
    write_caffemodel(folder / "nan.caffemodel", model.with_blobs({("ip2", 0): nan}))
    no_bias = [
        Layer(layer.param, layer.blobs[:1]) if layer.name == "ip2" else layer
        for layer in model.layers
    ]
    write_caffemodel(folder / "no_bias.caffemodel", Caffemodel(tuple(no_bias)))
    (folder / "renamed.prototxt").write_text(NET.replace('name: "ip2"', 'name: "fc"'))
    v1 = NetParameter()
    v1.layers.add(name="ip1")
    text = text_format.MessageToString(v1).replace('name: "ip1"', 'name: "ip1" type: }')
    (folder / "broken.prototxt").write_text(text)
    (folder / "cut.caffemodel").write_bytes((folder / "final.caffemodel").read_bytes()[:-50])
    (folder / "strange.prototxt").write_text(NET.replace('"ReLU"', '"Strange"'))


TRAIN_VAL = "train_val.prototxt"
DEPLOY_OF_ANOTHER = share_root() / "prototxt" / "caffenet" / "deploy.prototxt"
BAD = [
    (
        (
            "wrong_shape.caffemodel",
            "--net",
            "train_val.prototxt",
            *INPUT,
            "--out",
            "x.caffemodel.h5",
        ),
        r"wrong_shape.* with train_val.*: layer 'ip1', blob 0: the net says 20x30, .* holds 20x31;",
    ),
    (
        ("final.caffemodel", "--net", "renamed.prototxt", "--out", "x.npz"),
        r"layer 'fc': the net has it with blobs 10x\?, 10, .* holds none.*rename the layer.*ip1",
    ),
    (
        ("no_bias.caffemodel", "--net", "train_val.prototxt", "--out", "x.sparse.npz"),
        r"layer 'ip2': the net says 2 blobs \(10x\?, 10\), the caffemodel holds 1 \(10x20\)",
    ),
    (
        ("final.caffemodel", "--net", str(DEPLOY_OF_ANOTHER), "--out", "x.safetensors"),
        r"layer 'conv1': the net has it with blobs 96x3x11x11, 96, the caffemodel holds none",
    ),
    (
        ("nan.caffemodel", *INPUT, "--out", "x.onnx"),
        r"nan.caffemodel: layer 'ip2', blob 0 \(10x20\): 1 of 200",
    ),
    (
        ("nan.caffemodel", "--classifier", "ip2=new:5", "--out", "folder"),
        r"nan.caffemodel: layer 'ip2', blob 0 \(10x20\): 1 of 200",
    ),
    (
        ("final.caffemodel", "--classifier", "ip1=new:5", "--out", "folder"),
        r"layer 'ip1' is of type InnerProduct and no output layer; the output layers are: ip2",
    ),
    (("broken.prototxt", "--out", "x.prototxt"), r"broken.prototxt:[0-9]+:[0-9]+ :"),
    (("cut.caffemodel", "--out", "x.npz"), r"cut.caffemodel: .*truncated"),
    (("nowhere.caffemodel", "--out", "x.npz"), r"nowhere.caffemodel: no such file"),
    (
        ("final.caffemodel", "--net", "strange.prototxt", *INPUT, "--out", "x.onnx"),
        r"layer 'relu1' is of type Strange, which has no ONNX form here",
    ),
    (
        ("final.caffemodel", "--out", "x.onnx"),
        r"layer 'images' \(Data\): .* 'data'; give it with --input-shape data=NxCxHxW",
    ),
    (
        ("final.caffemodel", "--to", "hdf5", "--out", "x.hdf5"),
        r"x.hdf5: Caffe knows HDF5 weights by the ending .h5",
    ),
    (
        ("final.caffemodel", "--out", "final.caffemodel"),
        r"final.caffemodel: is an input and is not overwritten",
    ),
    (
        (
            "final.caffemodel",
            "--net",
            TRAIN_VAL,
            "--to",
            "deploy",
            *INPUT,
            "--out",
            f"./{TRAIN_VAL}",
        ),
        r"train_val.prototxt: is an input and is not overwritten",
    ),
    (("--from-zoo", "lenet", "--out", "zoo"), r"'lenet' is not in the table of known"),
]


@pytest.mark.parametrize(("command", "sentence"), BAD)
def test_bad_input_is_one_sentence_and_nothing_is_written(
    net: Path,
    weights: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    command: tuple[str, ...],
    sentence: str,
) -> None:
    make_bad_files(tmp_path)
    monkeypatch.chdir(tmp_path)
    before = {name: (tmp_path / name).read_bytes() for name in names_in(tmp_path)}
    result = run(*command)
    assert isinstance(result.exception, PruneError)
    assert "\n" not in str(result.exception)
    with pytest.raises(PruneError, match=sentence):
        raise result.exception
    assert {name: (tmp_path / name).read_bytes() for name in names_in(tmp_path)} == before


def test_a_fork_s_files_are_brought_to_caffe_s_own_layers(tmp_path: Path) -> None:
    cases = Path(__file__).parents[2] / "cases"
    out = tmp_path / "stock.caffemodel"
    done(cases / "fork_type.caffemodel", "--to", "stock", "--out", out)
    assert [layer.type for layer in read_caffemodel(out).layers] == ["InnerProduct"] * 2
    net = tmp_path / "fork.prototxt"
    net.write_text('layer { name: "a" type: "ReLU6" bottom: "b" top: "b" forward_type: FLOAT }')
    done(net, "--to", "stock", "--out", tmp_path / "stock.prototxt")
    (layer,) = read_net(tmp_path / "stock.prototxt").layer
    assert (layer.type, layer.clip_param.max, carried_fields(layer)) == ("Clip", 6, [])


def test_the_masks_of_a_fork_become_a_mask_file_where_they_are_asked_for(tmp_path: Path) -> None:
    weights, mask = np.ones((2, 3), np.float32), np.array([[1, 0, 1], [0, 0, 1]], np.float32)
    layer = LayerParameter(name="ip", type="CInnerProduct")
    model = Caffemodel((Layer(layer, (weights, np.ones(2, np.float32), mask)),))
    source, out, kept = (tmp_path / name for name in ("a.caffemodel", "b.caffemodel", "m.mask.h5"))
    write_caffemodel(source, model)
    plain = done(source, "--to", "stock", "--out", out)
    assert "the masks of ip are multiplied into the weights; --mask FILE keeps" in plain.stderr
    done(source, "--to", "stock", "--out", out, "--mask", kept)
    found = read_mask(kept)
    np.testing.assert_array_equal(found.masks["ip", 0], mask == 1)
    assert found.source_sha256 == sha256_of(source)
    assert nonzero_where_masked(read_caffemodel(out), found.masks) == {("ip", 0): 0}
    result = run(out, "--to", "stock", "--out", tmp_path / "c", "--mask", tmp_path / "d")
    assert "holds no masks behind its weights" in str(result.exception)
    assert not (tmp_path / "d").exists()


def test_values_that_are_not_finite_are_carried_over_with_a_warning(
    net: Path, weights: Path, tmp_path: Path
) -> None:
    make_bad_files(tmp_path)
    result = done(tmp_path / "nan.caffemodel", "--out", tmp_path / "x.npz")
    assert "NaN or infinite values stay as they are in layer 'ip2', blob 0" in result.stderr
    require_equal(read_weights(tmp_path / "x.npz"), read_weights(tmp_path / "nan.caffemodel"))


WRONG_COMMANDS = [
    ((), "--out is needed"),
    (("--out", "x.npz"), "INPUT is needed"),
    (("{weights}",), "--out is needed"),
    (("{weights}", "--classifier", "ip2", "--out", "x"), "not of the form fc8=fc8_oxford_102:102"),
    (("{weights}", "--classifier", "ip2=x:y", "--out", "x"), "not of the form"),
    (("{weights}", "--classifier", "a=b:3", "--to", "onnx", "--out", "x"), "in a second step"),
    (("{weights}", "--to", "prototxt", "--strip", "--out", "x"), "--strip is for"),
    (("{net}", "--net", "{net}", "--out", "x.prototxt"), "--net goes with weights"),
    (("{weights}", "--net", "{net}", "--out", "x.npy"), "--net goes with weights"),
    (("{weights}", "--net", "{net}", "--to", "stock", "--out", "x"), "takes INPUT alone"),
    (("{weights}", "--to", "stock", "--strip", "--out", "x"), "takes INPUT alone"),
    (("{net}", "--to", "stock", "--mask", "m", "--out", "x"), "--mask goes with --to stock and"),
    (("{weights}", "--mask", "m", "--out", "x.npz"), "--mask goes with --to stock and weights"),
    (("{weights}", "--to", "magic", "--out", "x"), "Invalid value for '--to'"),
]


@pytest.mark.parametrize(("command", "sentence"), WRONG_COMMANDS)
def test_a_wrong_command_line_is_exit_code_2(
    net: Path, weights: Path, command: tuple[str, ...], sentence: str
) -> None:
    result = run(*(part.format(net=net, weights=weights) for part in command))
    assert result.exit_code == 2
    assert sentence in result.output
