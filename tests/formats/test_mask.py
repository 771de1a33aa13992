import fcntl
import random
import time
from pathlib import Path

import h5py
import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from pycaffe_prune.errors import FormatError, SurgeryError
from pycaffe_prune.formats.caffe_pb2 import LayerParameter
from pycaffe_prune.formats.caffemodel import Caffemodel, Layer
from pycaffe_prune.formats.mask import (
    Mask,
    MaskFile,
    read_mask,
    require_fitting_masks,
    write_mask,
)

# The folder is the same for all examples: each one writes its file anew.
one_folder = settings(max_examples=20, suppress_health_check=[HealthCheck.function_scoped_fixture])

masks = hnp.arrays(np.bool_, hnp.array_shapes(min_dims=0, max_dims=4, min_side=0, max_side=5))
parts = st.text(st.characters(exclude_characters="/\0", exclude_categories=["Cs"]), min_size=1)
names = st.lists(parts.filter(lambda part: part != "."), min_size=1, max_size=3).map("/".join)


def is_prefix(one: str, other: str) -> bool:
    return (other + "/").startswith(one + "/")


def no_layer_is_anothers_blob(found: dict[tuple[str, int], Mask]) -> bool:
    """HDF5 cannot hold a dataset /a/0 beside the datasets of a layer called a/0."""
    places = [f"{layer}/{index}" for layer, index in found]
    return not any(is_prefix(one, other) for one in places for other, _ in found)


mask_files = st.builds(
    MaskFile,
    st.dictionaries(st.tuples(names, st.integers(0, 20)), masks, max_size=4).filter(
        no_layer_is_anothers_blob
    ),
    st.text("0123456789abcdef", min_size=64, max_size=64),
    st.sampled_from(["threshold", "onorm"]),
    st.dictionaries(
        st.text(), st.floats(allow_nan=False) | st.text() | st.lists(st.integers()), max_size=3
    ),
)


def example(path: Path) -> MaskFile:
    """A mask file of two layers, written to ``path``."""
    kept = np.random.default_rng(2).random((30, 40)) < 0.3
    whole = MaskFile({("ip1", 0): kept, ("a/b", 1): ~kept}, "0" * 64, "threshold", {"alpha": 1.5})
    write_mask(path, whole)
    return whole


@pytest.mark.usefixtures("no_fsync")
@one_folder
@given(mask_file=mask_files)
def test_what_is_written_is_read_back(tmp_path: Path, mask_file: MaskFile) -> None:
    write_mask(tmp_path / "a.mask.h5", mask_file)
    found = read_mask(tmp_path / "a.mask.h5")
    assert found.masks.keys() == mask_file.masks.keys()
    for key, mask in mask_file.masks.items():
        assert found.masks[key].dtype == np.bool_
        assert found.masks[key].shape == mask.shape
        assert np.array_equal(found.masks[key], mask)
    assert found.source_sha256 == mask_file.source_sha256
    assert found.criterion == mask_file.criterion
    assert found.parameters == mask_file.parameters


def test_a_slash_in_a_layers_name_makes_groups_as_in_caffes_own_files(tmp_path: Path) -> None:
    path = tmp_path / "a.mask.h5"
    mask_file = MaskFile({("inception_3a/1x1", 0): np.array([True, False])}, "", "threshold")
    write_mask(path, mask_file)
    with h5py.File(path) as file:
        assert file["inception_3a"]["1x1"]["0"][()].tolist() == [True, False]


def test_the_same_content_gives_the_same_bytes(tmp_path: Path) -> None:
    first = example(tmp_path / "first")
    time.sleep(1.1)  # HDF5 counts time stamps in seconds
    backwards = dict(reversed(first.masks.items()))
    again = MaskFile(backwards, first.source_sha256, first.criterion, first.parameters)
    write_mask(tmp_path / "again", again)
    assert (tmp_path / "again").read_bytes() == (tmp_path / "first").read_bytes()


def test_another_mask_gives_other_bytes(tmp_path: Path) -> None:
    first = example(tmp_path / "first")
    flipped = {key: ~mask for key, mask in first.masks.items()}
    write_mask(
        tmp_path / "other",
        MaskFile(flipped, first.source_sha256, first.criterion, first.parameters),
    )
    assert (tmp_path / "other").read_bytes() != (tmp_path / "first").read_bytes()


@pytest.mark.parametrize("name", ["", "/", "/a", "a/", "a//b", ".", "a/./b", "nul\0"])
def test_a_name_that_hdf5_would_change_is_refused(tmp_path: Path, name: str) -> None:
    bad = MaskFile({(name, 0): np.ones(3, np.bool_)}, "", "threshold")
    with pytest.raises(FormatError, match="a name that HDF5 cannot hold"):
        write_mask(tmp_path / "a.mask.h5", bad)
    assert list(tmp_path.iterdir()) == []


def damage(path: Path, how: str) -> None:
    example(path)
    with h5py.File(path, "r+") as file:
        if how == "float":
            file["ip1/1"] = np.ones(3, np.float32)
        elif how == "bytes":
            file["ip1/1"] = np.ones(3, np.uint8)
        elif how == "no index":
            file["ip1/weights"] = np.ones(3, np.bool_)
        elif how == "no layer":
            file["0"] = np.ones(3, np.bool_)
        elif how == "empty dataspace":
            file["ip1/1"] = h5py.Empty(np.bool_)
        elif how == "huge":
            file.create_dataset("ip1/1", (2**20, 2**20), np.bool_, chunks=(64, 64))
        elif how == "list":
            file.attrs["parameters"] = "[1, 2]"
        elif how == "number":
            file.attrs["parameters"] = 3
        elif how == "no json":
            file.attrs["parameters"] = "{alpha}"
        else:
            del file.attrs[how]


@pytest.mark.parametrize(
    ("how", "sentence"),
    [
        ("float", r"'/ip1/1' \(float32\) is not a mask"),
        ("bytes", r"'/ip1/1' \(uint8\) is not a mask"),
        ("no index", "'/ip1/weights' .* is not a mask"),
        ("no layer", "'/0' .* is not a mask"),
        ("empty dataspace", "'/ip1/1' has shape None, but its values are not there"),
        ("huge", r"'/ip1/1' has shape \(1048576, 1048576\), but its values are not there"),
        ("list", "'parameters' is no JSON object"),
        ("number", "'parameters' is no JSON object"),
        ("no json", "'parameters' is no JSON"),
        ("source_sha256", "lacks .*source_sha256"),
        ("criterion", "lacks .*criterion"),
        ("parameters", "lacks .*parameters"),
    ],
)
def test_what_is_no_mask_file_is_refused(tmp_path: Path, how: str, sentence: str) -> None:
    path = tmp_path / "bad.mask.h5"
    damage(path, how)
    with pytest.raises(FormatError, match=f"^{path}: .*{sentence}.*; a mask file .* is needed"):
        read_mask(path)


@pytest.mark.parametrize("content", [b"", b"text", b"\x89HDF\r\n\x1a\n", bytes(5000)])
def test_other_files_are_refused(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "bad.mask.h5"
    path.write_bytes(content)
    with pytest.raises(FormatError, match=f"^{path}: cannot be read .*; a mask file"):
        read_mask(path)


def test_masks_of_more_values_than_the_weights_have_are_not_unpacked(tmp_path: Path) -> None:
    path = tmp_path / "a.mask.h5"
    example(path)
    count = sum(mask.size for mask in read_mask(path).masks.values())
    assert read_mask(path, count).masks.keys() == read_mask(path).masks.keys()
    with pytest.raises(FormatError, match=f"or more, but the weights have {count - 1}; a mask"):
        read_mask(path, count - 1)


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(FormatError, match=f"^{tmp_path}/none: no such file; a mask file"):
        read_mask(tmp_path / "none")


def test_a_file_cut_short_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "a.mask.h5"
    example(path)
    content = path.read_bytes()
    for cut in range(0, len(content), 997):
        path.write_bytes(content[:cut])
        with pytest.raises(FormatError, match=f"^{path}: "):
            read_mask(path)


def test_damaged_bytes_are_read_or_refused(tmp_path: Path) -> None:
    path = tmp_path / "a.mask.h5"
    example(path)
    content = path.read_bytes()
    pick = random.Random(4)  # noqa: S311 -- no secret
    refused = 0
    for _ in range(25):
        damaged = bytearray(content)
        for at in pick.choices(range(len(content)), k=pick.randint(1, 6)):
            damaged[at] = pick.randrange(256)
        path.write_bytes(damaged)
        try:
            found = read_mask(path)
        except FormatError:
            refused += 1
        else:
            assert all(mask.dtype == np.bool_ for mask in found.masks.values())
    assert refused > 0


def model(shape: tuple[int, ...]) -> Caffemodel:
    return Caffemodel((Layer(LayerParameter(name="ip1"), (np.zeros(shape, np.float32),)),))


def test_masks_of_their_blobs_shapes_fit() -> None:
    require_fitting_masks(model((2, 3)), {("ip1", 0): np.ones((2, 3), np.bool_)})


def test_a_mask_of_another_shape_is_refused_with_both() -> None:
    with pytest.raises(SurgeryError, match=r"'ip1', blob 0: the mask is 3x2 but .* 2x3"):
        require_fitting_masks(model((2, 3)), {("ip1", 0): np.ones((3, 2), np.bool_)})


def test_a_mask_for_a_blob_that_is_not_there_is_refused() -> None:
    with pytest.raises(SurgeryError, match="'ip1' has 1 blobs, the mask is for blob 1"):
        require_fitting_masks(model((2, 3)), {("ip1", 1): np.ones(3, np.bool_)})
    with pytest.raises(FormatError, match="no layer 'ip2'"):
        require_fitting_masks(model((2, 3)), {("ip2", 0): np.ones(3, np.bool_)})


def test_a_file_that_another_process_has_locked_is_read(tmp_path: Path) -> None:
    """As a child is that was forked while the file was being written, until it runs its program."""
    masks = {("ip1", 0): np.eye(3, dtype=np.bool_)}
    write_mask(tmp_path / "a.mask.h5", MaskFile(masks, "0" * 64, "threshold"))
    with (tmp_path / "a.mask.h5").open("rb") as held:
        fcntl.flock(held, fcntl.LOCK_EX)
        found = read_mask(tmp_path / "a.mask.h5")
    np.testing.assert_array_equal(found.masks["ip1", 0], masks["ip1", 0])


def test_equal_masks_are_equal_bytes_however_late_datasets_are_closed(tmp_path, monkeypatch):
    sizes = {"ip1": 47_040, "ip2": 600}
    masks = {(name, 0): np.arange(size).reshape(-1, 20) % 7 > 1 for name, size in sizes.items()}
    first, second = (tmp_path / f"{name}.mask.h5" for name in ("first", "second"))
    write_mask(first, MaskFile(masks, "0" * 64, "threshold"))
    late, create = [], h5py.Group.create_dataset

    def kept(*arguments, **options):
        late.append(create(*arguments, **options))
        return late[-1]

    monkeypatch.setattr(h5py.Group, "create_dataset", kept)
    write_mask(second, MaskFile(masks, "0" * 64, "threshold"))
    assert len(late) == len(masks)
    assert first.read_bytes() == second.read_bytes()
