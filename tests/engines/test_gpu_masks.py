"""Masking on a GPU, as far as it can be seen without one: whose memory, which function, when.

The product itself is Caffe's. Here a function of the same name and signature, compiled from C,
takes its place, and the "GPU's" memory is the host's. `docker/gpu-check` runs the real one.
"""

import _ctypes
import ctypes
import shutil
import subprocess
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from pycaffe_prune.engines.caffe.caffe_worker import gpu_masks
from pycaffe_prune.engines.caffe.caffe_worker.gpu_masks import GpuMasks, HostMasks, make_masks
from pycaffe_prune.engines.caffe.caffe_worker.masks import Masks
from pycaffe_prune.formats.prototxt import read_net

_PRODUCT = f"""
void {gpu_masks._MULTIPLY}(int n, const float* a, const float* b, float* y) {{
  for (int i = 0; i < n; ++i) y[i] = a[i] * b[i];
}}
"""


@pytest.fixture(scope="module")
def product(tmp_path_factory):
    """A library of Caffe's name that exports the product, loaded as importing caffe loads it."""
    compiler = shutil.which("gcc") or shutil.which("cc")
    if compiler is None:
        pytest.skip("no C compiler here")
    folder = tmp_path_factory.mktemp("product")
    (folder / "mul.c").write_text(_PRODUCT)
    library = folder / "libcaffe.so.1.0.0"
    subprocess.run([compiler, "-shared", "-fPIC", "-o", library, folder / "mul.c"], check=True)
    loaded = ctypes.CDLL(str(library))
    yield library
    _ctypes.dlclose(loaded._handle)


def test_the_product_is_looked_up_by_the_name_that_a_compiler_gives_it():
    decode = shutil.which("c++filt")
    if decode is None:
        pytest.skip("no c++filt here (binutils)")
    printed = subprocess.run([decode, gpu_masks._MULTIPLY], capture_output=True, check=True).stdout
    signature = b"void caffe::caffe_gpu_mul<float>(int, float const*, float const*, float*)"
    assert printed.strip() == signature


class _Blob:
    """A blob whose GPU memory is the host's, so that both addresses are one."""

    def __init__(self, array):
        self.data, self.diff = np.ones_like(array), array

    @property
    def count(self):
        return self.data.size

    @property
    def _gpu_data_ptr(self):
        return self.data.ctypes.data

    @property
    def _gpu_diff_ptr(self):
        return self.diff.ctypes.data


class _Caffe:
    """Makes nets of Input layers, as far as `hold_masks` asks for."""

    TEST = 1

    @staticmethod
    def Net(path, phase):  # noqa: N802  (pycaffe's name)
        assert phase == _Caffe.TEST
        shapes = {
            layer.top[0]: tuple(layer.input_param.shape[0].dim)
            for layer in read_net(Path(path)).layer
        }
        blobs = {name: _Blob(np.zeros(shape, np.float32)) for name, shape in shapes.items()}
        return SimpleNamespace(blobs=blobs)


def _job(masks, folder):
    np.savez(folder / "mask.npz", **{f"m{place}": mask for place, mask in enumerate(masks)})
    return {"masked": [[f"ip{place}", 0] for place in range(len(masks))], "device": "cuda"}


def _net(diffs):
    blobs = [_Blob(diff) for diff in diffs]
    return SimpleNamespace(
        params={f"ip{place}": [blob] for place, blob in enumerate(blobs)},
        blobs={"loss": _Blob(np.zeros(1, np.float32))},
    )


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=30)
@given(
    shapes=st.lists(st.tuples(st.integers(1, 9), st.integers(1, 9)), min_size=1, max_size=4),
    seed=st.integers(0, 999),
)
def test_masked_gradients_become_zero_and_no_other_bit_changes(
    product, tmp_path, monkeypatch, shapes, seed
):
    monkeypatch.chdir(tmp_path)
    random = np.random.default_rng(seed)
    masks = [random.random(shape) < 0.5 for shape in shapes]
    before = [random.standard_normal(shape).astype(np.float32) for shape in shapes]
    net = _net([array.copy() for array in before])
    found = make_masks(_Caffe, net, _job(masks, tmp_path), emit=None)
    assert type(found) is GpuMasks
    found.zero_weights()
    found.zero_gradients()
    for (blob,), mask, array in zip(net.params.values(), masks, before, strict=True):
        np.testing.assert_array_equal(blob.diff, np.where(mask, array, 0))
        np.testing.assert_array_equal(blob.data, mask.astype(np.float32))
    assert found.revived() == 0
    assert not (tmp_path / "masks.prototxt").exists()


def test_the_gradients_address_is_asked_for_in_every_iteration(product, tmp_path, monkeypatch):
    """What lies on the host is brought to the GPU by asking, and may lie elsewhere then."""
    monkeypatch.chdir(tmp_path)
    net = _net([np.ones((2, 2), np.float32)])
    masks = make_masks(_Caffe, net, _job([np.zeros((2, 2), bool)], tmp_path), emit=None)
    for _ in range(2):
        blob = net.params["ip0"][0]
        blob.diff = np.ones((2, 2), np.float32)
        masks.zero_gradients()
        assert not blob.diff.any()


def test_a_cpu_needs_none_of_it(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    job = _job([np.ones((2, 2), bool)], tmp_path) | {"device": "cpu"}
    assert type(make_masks(None, _net([np.ones((2, 2), np.float32)]), job, emit=None)) is Masks


def test_a_caffe_without_the_product_is_masked_on_the_host_and_says_once_what_that_costs(
    tmp_path, monkeypatch
):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(gpu_masks, "_MULTIPLY", "no_such_function")
    warnings = []
    net = _net([np.ones((100, 5000), np.float32)])
    mask = np.zeros((100, 5000), bool)
    masks = make_masks(_Caffe, net, _job([mask], tmp_path), lambda **event: warnings.append(event))
    assert type(masks) is HostMasks
    for _ in range(25):
        net.params["ip0"][0].diff[...] = 1
        masks.zero_gradients()
        assert not net.params["ip0"][0].diff.any()
    (warning,) = warnings
    assert warning["event"] == "warning"
    assert "does not export caffe_gpu_mul" in warning["message"]
    assert " ms an iteration to fetch 2.0 MB" in warning["message"]


def test_a_pycaffe_without_addresses_is_masked_on_the_host(product, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.delattr(_Blob, "_gpu_diff_ptr")
    net = _net([np.ones((2, 2), np.float32)])
    found = make_masks(_Caffe, net, _job([np.ones((2, 2), bool)], tmp_path), emit=None)
    assert type(found) is HostMasks


_HOLD = """
import sys
import caffe, numpy as np
sys.path.insert(0, sys.argv[1])
from caffe_worker.gpu_masks import find_multiply, hold_masks
bits = [np.where(np.random.RandomState(i).rand(*shape) < 0.5, -1, 0).astype(np.int32)
        for i, shape in enumerate([(3, 4), (5, 2, 3, 3), (7,)])]
net = hold_masks(caffe, bits)
for blob, array in zip(net.blobs.values(), bits):
    assert blob.data.dtype == np.float32 and blob.count == array.size
    assert np.array_equal(blob.data, (array != 0).astype(np.float32)), blob.data
try:
    find_multiply()
except LookupError as error:
    print(error)
else:
    print("found")
"""


@pytest.mark.real_caffe
def test_caffe_itself_holds_the_masks_and_only_one_with_cuda_has_the_product(
    caffe_python: Path, tmp_path
):
    engines = Path(gpu_masks.__file__).parent.parent
    printed = subprocess.run(
        [caffe_python, "-c", _HOLD, engines],
        capture_output=True,
        text=True,
        cwd=tmp_path,
        check=True,
    ).stdout
    maps = subprocess.run(
        [caffe_python, "-c", "import caffe; print(open('/proc/self/maps').read())"],
        capture_output=True,
        text=True,
        check=True,
    ).stdout
    expected = "found" if "libcudart" in maps else "this Caffe does not export caffe_gpu_mul"
    assert printed.strip() == expected
