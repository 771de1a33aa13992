import gc
import threading
import weakref
from collections import deque
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from data_prep.mnist import build_mnist
from pycaffe_prune.engines.torch.data import resident
from pycaffe_prune.engines.torch.data.lmdb_source import database_source
from pycaffe_prune.engines.torch.data.prefetch import Prefetch
from pycaffe_prune.engines.torch.data.resident import ResidentSource
from pycaffe_prune.errors import DataError
from pycaffe_prune.formats.caffe_pb2 import TRAIN, DataParameter, Datum, LayerParameter
from tests.engines.torch.data.datums import (
    as_array,
    batches,
    data_layer,
    encoded,
    floats,
    raw,
    write_lmdb,
)

CPU = torch.device("cpu")
RANDOM = "crop_size: 3 mirror: true scale: 0.5 mean_value: 7"
STORES: dict[str, Callable[..., bytes]] = {"raw": raw, "float": floats, "encoded": encoded}


def images(count: int, height: int = 5, width: int = 6) -> list[NDArray[np.uint8]]:
    draws = np.random.default_rng(0)
    return list(draws.integers(0, 256, (count, 3, height, width), np.uint8))


@pytest.fixture(autouse=True)
def nothing_remembered(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(resident, "_remembered", deque())


def stored(folder: Path, count: int, store: str = "raw") -> Path:
    return write_lmdb(
        folder / f"lmdb_{store}",
        [STORES[store](image, label) for label, image in enumerate(images(count))],
    )


def brought(layer: LayerParameter, count: int, seek: int = 0) -> list[list[NDArray[np.float32]]]:
    source = database_source(layer, TRAIN, CPU, 5)
    source.seek(seek)
    return batches(source, count)


def require_same(
    ours: list[list[NDArray[np.float32]]], theirs: list[list[NDArray[np.float32]]]
) -> None:
    for one, other in zip(ours, theirs, strict=True):
        np.testing.assert_array_equal(np.stack(one), np.stack(other))


@pytest.fixture(params=["resident", "streamed"])
def way(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Both ways to read a set."""
    if request.param == "streamed":
        monkeypatch.setattr(resident, "CPU_BUDGET", 0)


@settings(max_examples=15, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    count=st.integers(1, 7),
    batch=st.integers(1, 9),
    seek=st.integers(0, 30),
    transform=st.sampled_from(["", RANDOM]),
    store=st.sampled_from(sorted(STORES)),
)
def test_one_goes_to_a_batch_as_one_comes_to_it(
    count: int,
    batch: int,
    seek: int,
    transform: str,
    store: str,
    way: None,
    tmp_path_factory: pytest.TempPathFactory,
) -> None:
    folder = stored(tmp_path_factory.mktemp("lmdb"), count, store)
    layer = data_layer(folder, batch, transform)
    walked = [top[seek:] for top in brought(layer, seek + 3)]
    require_same(brought(layer, 3, seek), walked)


@settings(max_examples=15, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    count=st.integers(1, 7),
    batch=st.integers(1, 9),
    transform=st.sampled_from(["", "crop_size: 2", "mirror: true", RANDOM]),
    store=st.sampled_from(["raw", "float"]),
)
def test_a_set_in_memory_and_a_set_read_batch_by_batch_are_the_same(
    count: int,
    batch: int,
    transform: str,
    store: str,
    monkeypatch: pytest.MonkeyPatch,
    tmp_path_factory: pytest.TempPathFactory,
) -> None:
    layer = data_layer(stored(tmp_path_factory.mktemp("lmdb"), count, store), batch, transform)
    with monkeypatch.context() as patch:
        held = brought(layer, 5)
        patch.setattr(resident, "CPU_BUDGET", 0)
        require_same(brought(layer, 5), held)


def test_what_fits_is_held_and_what_does_not_is_read_ahead(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(resident, "_REMEMBERED", 0)
    layer = data_layer(stored(tmp_path, 4), 2)
    found = []
    for budget in (4 * 3 * 5 * 6, 4 * 3 * 5 * 6 - 1):
        monkeypatch.setattr(resident, "CPU_BUDGET", budget)
        source = database_source(layer, TRAIN, CPU, 1)
        found.append(type(source))
        source.close()
    assert found == [ResidentSource, Prefetch]


def test_batches_never_repeat_what_was_drawn(way: None, tmp_path: Path) -> None:
    layer = data_layer(stored(tmp_path, 4), 4, RANDOM)
    passes, _ = brought(layer, 20)
    assert len({one.tobytes() for one in passes}) == 20


def test_sources_of_one_set_share_its_memory_and_the_last_gives_it_back(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(resident, "_REMEMBERED", 0)
    gc.collect()
    before = set(resident._loaded)
    layer = data_layer(stored(tmp_path, 4), 2)
    sources = [database_source(layer, TRAIN, CPU, seed) for seed in range(3)]
    held = {id(source._held) for source in sources if isinstance(source, ResidentSource)}
    assert len(held) == 1
    (mine,) = set(resident._loaded) - before
    for source in sources:
        source.close()
    gc.collect()
    assert mine not in resident._loaded


def test_sets_are_remembered_for_the_next_run_as_far_as_they_fit(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    held = []
    for name in "abc":
        (tmp_path / name).mkdir()
        source = database_source(data_layer(stored(tmp_path / name, 4), 2), TRAIN, CPU, 1)
        assert isinstance(source, ResidentSource)
        assert source._held is not None
        monkeypatch.setattr(resident, "_REMEMBERED", 2 * source._held.bytes)
        held.append(weakref.ref(source._held))
        source.close()
    gc.collect()
    assert [one() is None for one in held] == [True, False, False]


def test_a_set_that_was_built_anew_is_read_anew(tmp_path: Path) -> None:
    layer = data_layer(write_lmdb(tmp_path / "lmdb", [raw(images(1)[0], 1)]), 1)
    old = database_source(layer, TRAIN, CPU, 1)
    (tmp_path / "lmdb" / "data.mdb").unlink()
    write_lmdb(tmp_path / "lmdb", [raw(images(1)[0], 2)])
    new = database_source(layer, TRAIN, CPU, 1)
    assert [source.next()[1].item() for source in (old, new)] == [1, 2]
    old.close()
    new.close()


def test_no_batch_is_memory_of_the_set(way: None, tmp_path: Path) -> None:
    layer = data_layer(stored(tmp_path, 2, "float"), 2)
    source = database_source(layer, TRAIN, CPU, 1)
    first = source.next()
    wanted = [as_array(top) for top in first]
    for top in first:
        top.zero_()
    for _ in range(2):
        require_same([[as_array(top)] for top in source.next()], [[top] for top in wanted])
    source.close()


def test_images_of_many_sizes_are_cut_at_random(tmp_path: Path) -> None:
    sizes = [images(1, 4 + n % 3, 7 - n % 4)[0] for n in range(6)]
    layer = data_layer(write_lmdb(tmp_path / "lmdb", [encoded(image) for image in sizes]), 6)
    layer.transform_param.crop_size = 3
    for batch in brought(layer, 10)[0]:
        for cut, image in zip(batch, sizes, strict=True):
            views = np.lib.stride_tricks.sliding_window_view(image, (3, 3), (1, 2))
            views = views.transpose(1, 2, 0, 3, 4).reshape(-1, 3, 3, 3)
            assert (views == cut).all(axis=(1, 2, 3)).any()


def test_closing_ends_all_threads_and_the_database_can_be_opened_again(
    way: None, tmp_path: Path
) -> None:
    layer = data_layer(stored(tmp_path, 3), 2)
    before = set(threading.enumerate())
    for _ in range(3):
        source = database_source(layer, TRAIN, CPU, 1)
        source.next()
        source.close()
        source.close()
    assert set(threading.enumerate()) == before


def refuse(layer: LayerParameter, sentence: str) -> None:
    with pytest.raises(DataError, match=f"layer 'data'.*{sentence}"):
        brought(layer, 4)


BAD = [
    (b"\xff\xff\xff", "record 1 is not a Datum"),
    (Datum(channels=3, height=5, width=6, data=b"12").SerializeToString(), "3x5x6 with 2 values"),
    (Datum(channels=3, height=5, width=6).SerializeToString(), "with 0 values"),
    (Datum().SerializeToString(), "0x0x0 with 0 values"),
    (Datum(encoded=True, data=b"no image").SerializeToString(), "record 1 is encoded, but"),
    (Datum(encoded=True).SerializeToString(), "record 1 is encoded, but"),
    (raw(images(1, 5, 7)[0]), "an image is 3x5x7, the first one is 3x5x6"),
]


@pytest.mark.parametrize(("value", "sentence"), BAD)
def test_a_damaged_record_is_named(way: None, value: bytes, sentence: str, tmp_path: Path) -> None:
    values = [raw(images(1)[0]), value]
    refuse(data_layer(write_lmdb(tmp_path / "lmdb", values), 1), sentence)


def test_bytes_and_floats_in_one_set_are_refused(tmp_path: Path) -> None:
    values = [raw(images(1)[0]), floats(images(1)[0].astype(np.float32))]
    refuse(data_layer(write_lmdb(tmp_path / "lmdb", values), 1), "of bytes and of floats")


def test_an_image_of_more_than_bytes_is_refused(tmp_path: Path) -> None:
    values = [encoded(images(1)[0].astype(np.uint16) * 200)]
    refuse(data_layer(write_lmdb(tmp_path / "lmdb", values), 1), "record 0 is encoded, but")


def test_an_lmdb_that_is_missing_empty_or_cut_short_is_refused(tmp_path: Path) -> None:
    refuse(data_layer(tmp_path / "nowhere", 1), "nowhere is not there; build it")
    refuse(data_layer(write_lmdb(tmp_path / "empty", []), 1), "empty is empty; build it")
    cut = stored(tmp_path, 200)
    (cut / "data.mdb").write_bytes((cut / "data.mdb").read_bytes()[:-8192])
    refuse(data_layer(cut, 1), "cannot be read .* are needed")
    (cut / "data.mdb").write_bytes(b"no database")
    refuse(data_layer(cut, 1), "cannot be read")


def test_a_leveldb_is_refused(tmp_path: Path) -> None:
    layer = data_layer(stored(tmp_path, 1), 1)
    layer.data_param.backend = DataParameter.LEVELDB
    refuse(layer, "LevelDB by its backend.*make an LMDB")


def test_color_and_gray_at_once_are_refused(tmp_path: Path) -> None:
    refuse(
        data_layer(stored(tmp_path, 1), 1, "force_color: true force_gray: true"),
        "force_color and force_gray",
    )


@pytest.mark.mnist
def test_mnist_is_all_there(mnist_source: Path, tmp_path: Path) -> None:
    build_mnist(tmp_path, mnist_source)
    source = database_source(data_layer(tmp_path / "mnist_train_lmdb", 60_000), TRAIN, CPU, 1)
    pixels, labels = source.next()
    source.close()
    assert (tuple(pixels.shape), pixels.double().mean().item()) == (
        (60_000, 1, 28, 28),
        pytest.approx(33.3184, abs=1e-3),
    )
    assert torch.bincount(labels.long()).tolist() == [
        *(5923, 6742, 5958, 6131, 5842, 5421, 5918, 6265, 5851, 5949)
    ]
