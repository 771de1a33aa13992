"""Every name becomes one plain component of a path, or is refused."""

from pathlib import PurePosixPath, PureWindowsPath

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pycaffe_prune.experiments.paths import ExperimentFolder
from pycaffe_prune.path_names import MOST_BYTES, as_component, why_no_component
from tests.nasty import NASTY

REFUSED = {
    "": "no name",
    ".": "no name",
    "..": "no name",
    " ": "no name",
    "a/b": "'/'",
    "a\\b": r"'\'",
    "/etc/x": "'/'",
    "C:x": "':'",
    "what?": "'?'",
    "a\x00b": "cannot be seen",
    "a\nb": "cannot be seen",
    "-rf": "begins with",
    ".hidden": "begins with",
    "a.": "ends with",
    "a ": "ends with",
    "CON": "device",
    "nul.txt": "device",
    "Lpt1": "device",
    "x" * (MOST_BYTES + 1): "more than 100 bytes",
    "é" * MOST_BYTES: "more than 100 bytes",
}


@pytest.mark.parametrize("name", REFUSED)
def test_what_is_no_plain_name_is_refused_with_its_reason(name: str) -> None:
    why = why_no_component(name)
    assert why is not None
    assert REFUSED[name] in why


@pytest.mark.parametrize("name", ["lenet-300-100", "paper-10k", "my net", "Größe", "v1.2", "con1x"])
def test_plain_names_are_taken(name: str) -> None:
    assert why_no_component(name) is None


@pytest.mark.parametrize(
    "label",
    ["baseline-seed1", "alpha0.9-round2", "units-ip1-0.9-ip2-0.5", "small-fc_6-30-seed1"],
)
def test_a_label_of_usual_names_is_its_own_folder(label: str) -> None:
    assert as_component(label) == label


@settings(max_examples=100)
@given(st.one_of(st.text(max_size=200), st.sampled_from([*NASTY, *REFUSED])))
def test_any_name_becomes_one_component_below_its_folder(name: str) -> None:
    component = as_component(name)
    assert why_no_component(component) is None
    for kind in (PurePosixPath, PureWindowsPath):
        assert kind(component).parts == (component,)
    stage = ExperimentFolder(PurePosixPath("runs")).stage(name, "0" * 64)  # type: ignore[arg-type]
    assert stage.path.parent == PurePosixPath("runs/stages")
    assert len(stage.path.name.encode()) <= 255


def test_different_names_are_different_folders() -> None:
    names = ["a/b", "a_b", "a\\b", "a:b", "x" * 200, "x" * 201, "../a", "a"]
    assert len({as_component(name) for name in names}) == len(names)


def test_labels_that_differ_in_case_alone_have_different_folders() -> None:
    folder = ExperimentFolder(PurePosixPath("runs"))  # type: ignore[arg-type]
    paths = [folder.stage(name, key).path for name, key in (("fc", "0" * 64), ("FC", "1" * 64))]
    assert len({str(path).lower() for path in paths}) == 2
