"""Experiments as TOML: every file that comes along is sound, every slip is named."""

import pytest

from pycaffe_prune.engines.prepare import net_of_solver
from pycaffe_prune.errors import FormatError
from pycaffe_prune.experiments.reproduce import solver_path
from pycaffe_prune.experiments.spec import find_experiment, list_presets, read_experiment
from pycaffe_prune.formats.prototxt import read_net

SHIPPED = [(name, preset) for name, presets in list_presets().items() for preset in presets]


def test_the_presets_that_are_promised_are_there():
    assert {"quick", "paper", "paper-10k"} <= set(list_presets()["lenet-300-100"])


@pytest.mark.parametrize(("name", "preset"), SHIPPED)
def test_every_experiment_names_itself_and_a_net_that_has_its_layers(name, preset):
    toml = find_experiment(name, preset)
    spec = read_experiment(toml)
    assert (spec.name, spec.preset) == (name, preset)
    net = read_net(net_of_solver(solver_path(spec, toml)))
    fully_connected = [layer.name for layer in net.layer if layer.type == "InnerProduct"]
    assert list(spec.layers) == fully_connected
    assert {spec.units.layer, *spec.units.fixed} <= set(fully_connected[:-1])


def test_the_paper_presets_keep_to_the_protocol():
    for preset, iterations in (("paper", 100_000), ("paper-10k", 10_000)):
        spec = read_experiment(find_experiment("lenet-300-100", preset))
        assert (spec.connections.rounds, len(spec.baseline.seeds)) == (5, 5)
        assert (min(spec.connections.alphas), max(spec.connections.alphas)) == (0.6, 2.8)
        assert spec.connections.iterations == spec.units.iterations == iterations
        assert spec.connections.sigma == "initial"


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("rounds = 2", "round = 2", "connections"),
        ("rounds = 2", "rounds = 0", r"connections\.rounds"),
        ("seeds = [1, 2]", "seeds = []", r"seeds"),
        ("alphas =", 'sigma = "median"\nalphas =', r"connections\.sigma"),
        ("[baseline]", "[baseline", "line"),
    ],
)
def test_a_slip_is_named_with_file_and_field(toml, old, new, message):
    toml.write_text(toml.read_text().replace(old, new, 1))
    with pytest.raises(FormatError, match=rf"small\.toml: .*{message}"):
        read_experiment(toml)


def test_an_unknown_experiment_is_answered_with_those_there_are():
    with pytest.raises(FormatError, match=r"lenet-300-100 \(paper, paper-10k, quick\)"):
        find_experiment("lenet-300", "quick")
