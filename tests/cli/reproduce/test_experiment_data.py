"""The data set of an experiment: its folder, its settings, and what is said without it."""

from dataclasses import replace

import click
import lmdb
import pytest

from data_prep.digits import build_digits
from data_prep.lmdb_writer import lmdb_content_checksum
from data_prep.manifest import write_manifest
from pycaffe_prune.cli.reproduce.experiment_data import (
    data_folder,
    data_set_of,
    get_data,
    known_data_set,
)
from pycaffe_prune.errors import DataError, FormatError
from pycaffe_prune.experiments.spec import find_experiment, list_presets, read_experiment

SHIPPED = [(name, preset) for name, presets in list_presets().items() for preset in presets]


@pytest.fixture
def tiny():
    return read_experiment(find_experiment("caffenet-oxford102", "tiny"))


def _with(spec, **data_settings):
    return spec.model_copy(update={"data_settings": data_settings})


@pytest.mark.parametrize(("name", "preset"), SHIPPED)
def test_every_experiment_gives_settings_that_its_builder_knows(name, preset, tmp_path):
    spec = read_experiment(find_experiment(name, preset))
    empty = None if spec.data in ("features", "subset") else tmp_path
    with pytest.raises(DataError):  # of the empty folder, not FormatError of a setting
        get_data(spec, tmp_path / "new", empty)


def test_a_setting_that_the_builder_does_not_know_is_named_with_those_it_knows(tiny, tmp_path):
    with pytest.raises(FormatError, match=r"preset 'tiny': data_settings\.limits: .*limit"):
        get_data(_with(tiny, limits=3), None, tmp_path)


def test_the_folder_is_the_users_then_the_settings_then_the_data_sets(tiny, tmp_path):
    assert data_folder(tiny, tmp_path) == tmp_path
    assert str(data_folder(tiny, None)) == "data/flowers102-tiny"
    assert str(data_folder(_with(tiny), None)) == "data/flowers102"


def test_presets_that_share_a_folder_want_the_same_data_set():
    wishes = {}
    for name, preset in SHIPPED:
        spec = read_experiment(find_experiment(name, preset))
        wishes.setdefault(data_folder(spec, None), []).append(spec.data_settings)
    for settings in wishes.values():
        assert all(other == settings[0] for other in settings)


def test_a_data_set_with_another_mean_image_is_refused_and_named(tiny, tmp_path):
    paper = read_experiment(find_experiment("caffenet-oxford102", "paper"))
    manifest = build_digits(tmp_path)
    with pytest.raises(DataError, match=r"mean image of the training images.*ILSVRC 2012.*--data"):
        get_data(paper, tmp_path, None)
    write_manifest(tmp_path, replace(manifest, mean_of="ILSVRC 2012"))
    assert get_data(paper, tmp_path, None)[0] == tmp_path
    with pytest.raises(DataError, match=r"ILSVRC 2012.*preset 'tiny'.*--mean compute --out DIR"):
        get_data(tiny, tmp_path, None)


def test_without_the_papers_mean_image_it_is_said_which_command_takes_its_file(
    tmp_path, monkeypatch
):
    monkeypatch.delenv("PYCAFFE_PRUNE_DATA", raising=False)
    paper = read_experiment(find_experiment("caffenet-oxford102", "paper"))
    with pytest.raises(DataError, match=r"--mean \(`caffe-prune data flowers102 .*--data DIR"):
        get_data(paper, tmp_path, None)


def test_features_are_not_made_on_the_way_and_it_is_said_how(tiny, tmp_path):
    features = tiny.model_copy(update={"data": "features", "data_settings": {}})
    with pytest.raises(DataError, match=r"caffe-prune features .*--data"):
        get_data(features, tmp_path, None)


def test_a_finished_data_set_that_the_user_names_is_taken_as_it_is(tiny, tmp_path):
    manifest = build_digits(tmp_path / "digits")
    place, found = get_data(tiny, tmp_path / "digits", None)
    assert (place, found) == (tmp_path / "digits", manifest)
    assert known_data_set(place) == data_set_of(manifest, place)
    assert known_data_set(tmp_path).name == "not built"


def test_data_that_are_not_those_of_their_manifest_are_taken_as_they_are_and_it_is_said(
    tmp_path, capsys
):
    manifest = build_digits(tmp_path / "digits")
    folder = tmp_path / "digits" / "mnist_train_lmdb"
    with lmdb.open(str(folder)) as environment, environment.begin(write=True) as transaction:
        transaction.delete(next(iter(transaction.cursor()))[0])
    found = data_set_of(manifest, tmp_path / "digits")
    assert (found.train_images, found.test_images) == (1499, 297)
    assert found.train_sha256 == lmdb_content_checksum(folder) != manifest.splits["train"].sha256
    assert found.test_sha256 == manifest.splits["test"].sha256
    assert "mnist_train_lmdb: its records are not those of its manifest" in capsys.readouterr().err


def test_a_source_that_is_not_read_is_told(tiny, tmp_path, capsys):
    build_digits(tmp_path / "digits")
    get_data(tiny, tmp_path / "digits", tmp_path)
    assert "--source is not read" in capsys.readouterr().err
    features = tiny.model_copy(update={"data": "features", "data_settings": {}})
    with pytest.raises(click.UsageError, match=r"--source .*--data"):
        get_data(features, tmp_path / "digits", tmp_path)
