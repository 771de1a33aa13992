"""Strangers' TOML files: each is one sentence, soon; or its names stay names."""

from pathlib import Path

import pytest

from pycaffe_prune.errors import FormatError
from pycaffe_prune.experiments.spec import read_experiment

TOML = """
name = "tiny"
preset = "quick"
title = "Tiny"
solver = "solver.prototxt"
data = "mnist"
layers = ["ip1", "ip2", "ip3"]
data_settings = {}
[baseline]
seeds = [1, 2]
iterations = 60
[[methods]]
kind = "connections"
alphas = [0.9, 1.5]
rounds = 2
iterations = 40
[[methods]]
kind = "units"
layer = "ip1"
ratios = [0.9]
fixed = { ip2 = 0.9 }
iterations = 40
[[methods]]
kind = "small"
seeds = [1]
iterations = 40
"""


def _many(count: int) -> str:
    return f"alphas = [{', '.join(f'{at}e-3' for at in range(count))}]"


FAULTS = {
    "deep": (TOML, f"a = {'[' * 5_000}{']' * 5_000}\n", "nested too deeply"),
    "digits": ("iterations = 60", f"iterations = {'9' * 5_000}", "too many digits"),
    "iterations": ("iterations = 60", f"iterations = {1 << 31}", "baseline.iterations: Input"),
    "seed": ("seeds = [1, 2]", f"seeds = [{1 << 63}]", "baseline.seeds.0: Input"),
    "negative seed": ("seeds = [1, 2]", "seeds = [-5]", "baseline.seeds.0: Input"),
    "rounds": ("rounds = 2", "rounds = 100000000", "connections.rounds: Input"),
    "alphas": ("alphas = [0.9, 1.5]", _many(20_000), "stages; 20,000 are the most"),
    "long": ('title = "Tiny"', f'title = "{"x" * 1_000_000}"', "is over 1,000,000 bytes"),
    "folder": ("data_settings = {}", 'data_settings = { folder = ["x"] }', "folder: Input"),
    "folder above": ("data_settings = {}", 'data_settings = { folder = "../x" }', "holds '/'"),
    "whole path": ("data_settings = {}", 'data_settings = { folder = "/x" }', "holds '/'"),
    "mean": ("data_settings = {}", "data_settings = { mean = 5 }", "mean: Input"),
    "limit": ("data_settings = {}", "data_settings = { limit = -1 }", "limit: Input"),
    "name": ('name = "tiny"', 'name = "../../x"', "name: '../../x' holds '/'"),
    "nul": ('name = "tiny"', 'name = "a\\u0000"', "cannot be seen"),
    "preset": ('preset = "quick"', 'preset = ".."', "preset: '..' is no name"),
    "variant": (
        'preset = "quick"',
        'preset = "q"\nvariant_of = "../q"',
        "variant_of: '../q'",
    ),
    "variant of any": ('preset = "quick"', 'preset = "q"\nvariant_of = [1]', "no such file"),
}


@pytest.mark.parametrize("fault", FAULTS)
def test_a_fault_is_one_sentence(fault: str, tmp_path: Path) -> None:
    sound, changed, words = FAULTS[fault]
    path = tmp_path / "own.toml"
    path.write_text(TOML.replace(sound, changed))
    with pytest.raises(FormatError) as refused:
        read_experiment(path)
    assert words in str(refused.value)
    assert "\n" not in str(refused.value)
    assert len(str(refused.value)) < 400


def test_a_folder_is_no_experiment(tmp_path: Path) -> None:
    with pytest.raises(FormatError):
        read_experiment(tmp_path)


def test_markup_in_a_title_is_a_title(tmp_path: Path) -> None:
    path = tmp_path / "own.toml"
    path.write_text(TOML.replace('title = "Tiny"', 'title = "[/red] \\u001b]0;pwn\\u0007"'))
    assert read_experiment(path).title == "[/red] \x1b]0;pwn\x07"
