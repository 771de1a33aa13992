"""A run computes its masked layers as it began to, and says how."""

from collections.abc import Iterator

import numpy as np
import pytest

from pycaffe_prune.engines.base import Event
from pycaffe_prune.engines.run import train
from pycaffe_prune.engines.run_folder import RunFolder
from pycaffe_prune.engines.torch.engine import TorchEngine
from pycaffe_prune.engines.torch.products import Product, read_products, write_products
from pycaffe_prune.formats.caffemodel import read_caffemodel
from pycaffe_prune.formats.files import sha256_of
from pycaffe_prune.formats.mask import MaskFile, write_mask


@pytest.fixture(scope="module")
def own_engine(tmp_path_factory: pytest.TempPathFactory) -> Iterator[TorchEngine]:
    """An engine whose workers know nothing of other runs' measurements."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PYCAFFE_PRUNE_CACHE", str(tmp_path_factory.mktemp("cache")))
        engine = TorchEngine()
        yield engine
        engine.close()


@pytest.fixture
def begin(own_engine, make_solver, request_for, tmp_path):
    """Train a net whose layer 'ip1' keeps 3 % of its weights; return the folder and the events."""
    solver = make_solver()
    net = solver.parent / "net.prototxt"
    net.write_text(net.read_text().replace("num_output: 20", "num_output: 300"))
    masks = {("ip1", 0): np.random.default_rng(0).random((300, 784)) < 0.03}
    write_mask(tmp_path / "kept.mask.h5", MaskFile(masks, "0" * 64, "random"))
    weights = tmp_path / "none.caffemodel"

    def begin(name: str, iterations: int, **fields) -> tuple[RunFolder, list[Event]]:
        seen: list[Event] = []
        fields = {"weights": weights, **fields} if weights.exists() else fields
        mask = tmp_path / "kept.mask.h5" if weights.exists() else None
        request = request_for(solver, max_iter=iterations, mask=mask, **fields)
        train(request, tmp_path / name, own_engine, seen.append)
        return RunFolder(tmp_path / name), seen

    folder, seen = begin("dense", 1)
    assert not [event for event in seen if event.event == "products"]
    assert not folder.products.exists()
    folder.final_weights.rename(weights)
    return begin


def test_a_run_goes_on_as_it_began_and_another_one_begins_alike(begin, tmp_path):
    whole, _ = begin("whole", 40)
    parts, seen = begin("parts", 15)
    (product,) = read_products(parts.products)
    assert (product.layer, product.way) == ("ip1", "sparse")
    assert product.told in [event.message for event in seen if event.event == "products"]
    assert product.told in parts.log.read_text()
    assert read_products(whole.products) == (product,)
    restored, _ = begin(
        "restored",
        40,
        weights=None,
        restore=parts.snapshots / "snapshot_iter_15.solverstate",
    )
    _, seen = begin("parts", 40)
    assert not [event for event in seen if event.event == "products"]
    sums = {sha256_of(folder.final_weights) for folder in (whole, parts, restored)}
    assert len(sums) == 1
    weights = read_caffemodel(whole.final_weights).layer("ip1").blobs[0]
    kept = np.random.default_rng(0).random((300, 784)) < 0.03
    np.testing.assert_array_equal(weights != 0, kept)


def test_what_lies_in_the_folder_is_followed_and_nothing_there_is_dense(begin, tmp_path):
    (tmp_path / "told").mkdir()
    told = (Product(layer="ip1", way="live", milliseconds={}),)
    write_products(tmp_path / "told" / "products.json", told)
    folder, seen = begin("told", 3)
    assert read_products(folder.products) == told
    assert not [event for event in seen if event.event == "products"]

    begun, _ = begin("begun", 15)
    begun.products.unlink()
    begun, seen = begin("begun", 30)
    assert not begun.products.exists()
    assert not [event for event in seen if event.event == "products"]
