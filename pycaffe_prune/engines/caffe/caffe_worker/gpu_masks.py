"""Exact masking of a solver of pycaffe that computes on a GPU."""

import ctypes
import os
import time

from .masks import Masks
from .moving_masks import make_moving
from .tied import Tied

# caffe::caffe_gpu_mul<float>(int n, const float* a, const float* b, float* y), y = a * b
# (src/caffe/util/math_functions.cu), under the name that GCC and Clang give it.
_MULTIPLY = "_ZN5caffe13caffe_gpu_mulIfEEviPKT_S3_PS1_"
_LIBRARIES = ("libcaffe", "_caffe")  # shared, or linked into the Python module
_MEASURED = 10


def make_masks(caffe, net, job, emit):
    """Return what masks ``net`` where it computes: on the host, or on the GPU without copies.

    A Caffe that gives no way to the GPU's memory is masked on the host, with a warning that says
    what it costs.
    """
    if job.get("masking"):
        return make_moving(net, job)
    if job.get("tying"):
        return Tied(net, job)
    if job["device"] == "cpu" or not job["masked"]:
        return Masks(net, job)
    try:
        return GpuMasks(caffe, net, job)
    except LookupError as error:
        return HostMasks(net, job, emit, str(error))


class GpuMasks(Masks):
    """Multiplies the gradients by 0 and 1 on the GPU.

    The masks lie there as blobs of a net of Input layers, so that Caffe itself takes and gives back
    the memory. Unlike a host's AND a product can give -0.0, which the update (0 - 0.0 * rate)
    leaves no trace of, and keeps NaN, with which a run ends.
    """

    def __init__(self, caffe, net, job):
        super().__init__(net, job)
        self._multiply = find_multiply()
        if not hasattr(type(self._blobs[0]), "_gpu_diff_ptr"):
            raise LookupError("this pycaffe does not give a blob's address on the GPU")
        self._net = hold_masks(caffe, self._bits)
        # Nothing touches a mask on the host again, so it stays where it is on the GPU.
        self._kept = [blob._gpu_data_ptr for blob in self._net.blobs.values()]

    def zero_gradients(self):
        """Zero the masked gradients; called by the solver between backward and update."""
        for blob, kept in zip(self._blobs, self._kept):
            # Asked each time: what a layer has left on the host is copied to the GPU by this.
            diff = blob._gpu_diff_ptr
            self._multiply(blob.count, diff, kept, diff)


class HostMasks(Masks):
    """Fetches the gradients from the GPU, and says after some iterations what that costs."""

    def __init__(self, net, job, emit, reason):
        super().__init__(net, job)
        self._emit, self._reason, self._seconds = emit, reason, []
        self._smallest = min(net.blobs.values(), key=lambda blob: blob.count)

    def zero_gradients(self):
        """Zero the masked gradients; called by the solver between backward and update."""
        if len(self._seconds) == _MEASURED:
            super().zero_gradients()
            return
        float(self._smallest.data.flat[0])  # waits until the GPU is done with the backward pass
        started = time.perf_counter()
        super().zero_gradients()
        self._seconds.append(time.perf_counter() - started)
        if len(self._seconds) == _MEASURED:
            self._warn()

    def _warn(self):
        size = sum(bits.nbytes for bits in self._bits) / 1e6
        self._emit(
            event="warning",
            message="masks are applied on the host, since %s: %.2f ms an iteration to fetch %.1f "
            "MB of gradients and mask them, and the way back"
            % (self._reason, 1e3 * sorted(self._seconds)[_MEASURED // 2], size),
        )


def hold_masks(caffe, bits):
    """Return a net whose blobs, in the order of ``bits``, are 1.0 where a weight is kept, else 0.0.

    Each of ``bits`` is an int32 array, -1 where the weight is kept.
    """
    with open("masks.prototxt", "w") as file:
        for place, array in enumerate(bits):
            dims = " ".join("dim: %d" % extent for extent in array.shape)
            file.write(
                "layer { name: 'm%d' type: 'Input' top: 'm%d' input_param { shape { %s } } }\n"
                % (place, place, dims)
            )
    net = caffe.Net("masks.prototxt", caffe.TEST)
    os.remove("masks.prototxt")
    for blob, array in zip(net.blobs.values(), bits):
        blob.data[...] = array != 0
    return net


def find_multiply():
    """Return Caffe's product of two arrays on the GPU: (count, a, b, result), addresses as ints.

    Raises LookupError where the Caffe that was imported does not export it.
    """
    with open("/proc/self/maps") as maps:
        paths = {line.split(None, 5)[-1].rstrip() for line in maps}
    for path in sorted(paths):
        if os.path.basename(path).startswith(_LIBRARIES):
            function = getattr(ctypes.CDLL(path), _MULTIPLY, None)
            if function is not None:
                pointer = ctypes.c_void_p
                function.argtypes, function.restype = (ctypes.c_int, *[pointer] * 3), None
                return function
    raise LookupError("this Caffe does not export caffe_gpu_mul")
