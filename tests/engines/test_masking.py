import json

import numpy as np
import pytest
from google.protobuf import text_format
from pydantic import ValidationError

from pycaffe_prune.engines.job import Job
from pycaffe_prune.engines.masking import DynamicSurgery, FewBits, GradualMagnitude, read_masking
from pycaffe_prune.engines.prepare import prepare
from pycaffe_prune.engines.run import train
from pycaffe_prune.engines.run_folder import RunFolder
from pycaffe_prune.errors import PruneError
from pycaffe_prune.formats.mask import MaskFile, write_mask
from pycaffe_prune.formats.prototxt import read_net
from pycaffe_prune.pruning.few_bits import level_rule

SURGERY = DynamicSurgery.of({"ip1": 1.0, "ip2": 0.5}, stop=100)
GRADUAL = GradualMagnitude.of({"ip1": 0.9}, every=10, changes=5)
FEW_BITS = FewBits.of({"ip1": level_rule("3bits:min-max"), "ip2": level_rule("ternary")})


def test_a_masking_travels_in_the_job_and_comes_back(tmp_path, request_for):
    for masking in (SURGERY, GRADUAL, FEW_BITS):
        folder = RunFolder(tmp_path / masking.kind)
        job = prepare(request_for(masking=masking), folder)
        assert job.masking == masking
        assert Job.model_validate_json(folder.job.read_bytes()) == job
        assert json.loads(folder.job.read_text())["masking"]["kind"] == masking.kind


def test_a_job_of_an_older_version_has_masks_that_stay(tmp_path, request_for):
    folder = RunFolder(tmp_path / "run")
    job = prepare(request_for(), folder)
    old = json.loads(folder.job.read_text())
    assert old.pop("masking") is None
    assert Job.model_validate(old) == job


def test_a_run_with_other_masks_to_come_is_another_run(tmp_path, request_for):
    folder = RunFolder(tmp_path / "run")
    prepare(request_for(masking=GRADUAL), folder)
    prepare(request_for(masking=GRADUAL), folder)
    for other in (None, SURGERY, GradualMagnitude.of({"ip1": 0.8}, every=10, changes=5)):
        with pytest.raises(PruneError, match=r"holds another run: masks change by \{.*0.9"):
            prepare(request_for(masking=other), folder)


@pytest.mark.parametrize(
    ("masking", "sentence"),
    [
        (DynamicSurgery.of({"ip9": 1.0}, stop=5), "layer 'ip9', which the net does not have"),
        (
            DynamicSurgery(blobs=({"layer": "ip1", "index": 2, "c": 1},), stop=5),
            r"layer 'ip1', blob 2, which the layer \(InnerProduct\) does not have",
        ),
        (
            GradualMagnitude.of({"ip1": 0.9}, begin=100, every=10, changes=10),
            "after 200 iterations, and its last masks are made before iteration 200",
        ),
    ],
)
def test_what_the_net_or_the_run_has_not_is_refused_by_name(
    tmp_path, request_for, masking, sentence
):
    with pytest.raises(PruneError, match=sentence):
        prepare(request_for(masking=masking), RunFolder(tmp_path / "run"))
    assert not (tmp_path / "run").exists()


def test_statistics_shared_blobs_and_states_to_go_on_from_are_refused(
    tmp_path, request_for, make_solver
):
    solver = make_solver()
    path = solver.parent / "net.prototxt"
    net = read_net(path)
    norm = net.layer.add(name="norm", type="BatchNorm", bottom=["ip1"], top=["ip1"])
    twin = net.layer.add()
    twin.CopyFrom(next(layer for layer in net.layer if layer.name == "ip2"))
    twin.name, twin.bottom[0], twin.top[0] = "twin", norm.top[0], "twin"
    for layer in net.layer:
        if layer.name in ("ip2", "twin"):
            layer.param.add(name="w")
    path.write_text(text_format.MessageToString(net))
    with pytest.raises(PruneError, match=r"layer 'norm' \(BatchNorm\) holds statistics"):
        prepare(
            request_for(solver, masking=DynamicSurgery.of({"norm": 1}, stop=5)),
            RunFolder(tmp_path / "run"),
        )
    with pytest.raises(PruneError, match="'ip2' and 'twin' share one blob"):
        prepare(
            request_for(solver, masking=DynamicSurgery.of({"ip2": 1, "twin": 1}, stop=5)),
            RunFolder(tmp_path / "run"),
        )
    whole = {("twin", 0): np.ones((10, 20), np.bool_)}
    write_mask(tmp_path / "m.h5", MaskFile(whole, "0" * 64, "threshold"))
    with pytest.raises(PruneError, match=r"names the one, the mask the other: .* name 'twin'"):
        prepare(
            request_for(solver, masking=FEW_BITS, mask=tmp_path / "m.h5"),
            RunFolder(tmp_path / "run"),
        )


def test_a_state_to_go_on_from_tells_nothing_of_masks(tmp_path, request_for, torch_engine):
    train(request_for(max_iter=2, test_interval=0), tmp_path / "one", torch_engine, lambda _: None)
    state = tmp_path / "one" / "snapshots" / "snapshot_iter_2.solverstate"
    with pytest.raises(PruneError, match="cannot go on from another's state"):
        prepare(request_for(restore=state, masking=GRADUAL), RunFolder(tmp_path / "two"))


@pytest.mark.parametrize(
    ("kind", "fields", "sentence"),
    [
        (DynamicSurgery, {"blobs": ({"layer": "a", "c": 1},) * 2, "stop": 1}, "named twice"),
        (DynamicSurgery, {"blobs": (), "stop": 1}, "at least 1"),
        (DynamicSurgery, {"blobs": ({"layer": "a", "c": np.nan},), "stop": 1}, "finite"),
        (DynamicSurgery, {"blobs": ({"layer": "a", "c": 1},), "stop": -1}, "greater than or equal"),
        (DynamicSurgery, {"blobs": ({"layer": "a", "c": 1},), "stop": 1, "gama": 1}, "Extra"),
        (
            GradualMagnitude,
            {"blobs": ({"layer": "a", "sparsity": 0.5},), "every": 1, "changes": 1, "initial": 0.6},
            "begins with a sparsity of 0.6 and ends with 0.5; masks only shrink",
        ),
        (
            GradualMagnitude,
            {"blobs": ({"layer": "a", "sparsity": 1.0},), "every": 1, "changes": 1},
            "less than 1",
        ),
        (
            GradualMagnitude,
            {"blobs": ({"layer": "a", "sparsity": 0.5},), "every": 0, "changes": 1},
            "greater than or equal to 1",
        ),
    ],
)
def test_what_is_no_masking_is_refused(kind, fields, sentence):
    with pytest.raises(ValidationError, match=sentence):
        kind(**fields)


TOML = """
kind = "dynamic_surgery"
stop = 100
[[blobs]]
layer = "ip1"
c = 1.0
[[blobs]]
layer = "ip2"
c = 0.5
"""


def test_a_file_says_how_masks_change(tmp_path):
    path = tmp_path / "surgery.toml"
    path.write_text(TOML)
    assert read_masking(path) == SURGERY


def test_a_file_says_which_levels_there_are(tmp_path):
    path = tmp_path / "few.toml"
    blobs = ('layer = "ip1"\nrule = "min-max"\nbits = 3', 'layer = "ip2"\nrule = "ternary"')
    path.write_text('kind = "few_bits"' + "".join(f"\n[[blobs]]\n{blob}" for blob in blobs))
    assert read_masking(path) == FEW_BITS


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        (TOML.replace("dynamic_surgery", "magic"), "'magic'.*'dynamic_surgery'.*'gradual'"),
        ('kind = "few_bits"\n[[blobs]]\nlayer = "a"\nrule = "mse"', "'mse' needs bits, 1 to 8"),
        (TOML.replace("stop = 100", ""), "dynamic_surgery.stop: Field required"),
        (TOML.replace("c = 0.5", 'c = "x"'), "blobs.1.c: .*valid number"),
        (TOML.replace("ip2", "ip1"), "layer 'ip1', blob 0 is named twice"),
        ("kind =", "a TOML file that says how masks or weights change is needed"),
        ("stop = 1", "Unable to extract tag using discriminator 'kind'"),
    ],
)
def test_a_file_that_does_not_is_refused_with_the_place(tmp_path, text, sentence):
    path = tmp_path / "surgery.toml"
    path.write_text(text)
    with pytest.raises(PruneError, match=f"surgery.toml: .*{sentence}"):
        read_masking(path)
    with pytest.raises(PruneError, match=r"no\.toml"):
        read_masking(tmp_path / "no.toml")
