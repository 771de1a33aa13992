"""The accuracy with images that come again is the one that Caffe's own test gives."""

import os
import subprocess

import pytest

from pycaffe_prune.engines.run import train

# Caffe's Solver::Test on a new net: the mean of the Accuracy layer over test_iter batches.
OWN_TEST = """
import sys, caffe
net = caffe.Net(sys.argv[1], sys.argv[2], caffe.TEST)
print(sum(float(net.forward()["accuracy"]) for _ in range(3)) / 3)
"""


@pytest.mark.real_caffe
def test_three_batches_of_a_hundred_go_round_the_297_images_as_in_caffe(
    request_for, tmp_path, engine, caffe_python
):
    # The tests between leave the cursor in the middle of the ring.
    done = train(
        request_for(max_iter=40, test_interval=20), tmp_path / "run", engine, lambda _: None
    )
    files = [tmp_path / "run" / name for name in ("net.prototxt", "final.caffemodel")]
    own = subprocess.run(
        [caffe_python, "-c", OWN_TEST, *files],
        capture_output=True,
        text=True,
        check=True,
        env=os.environ | {"GLOG_minloglevel": "2"},
    )
    last = done.final_test
    assert (last.images, last.cycled_images) == (297, 300)
    assert last.cycled == pytest.approx(float(own.stdout), abs=1e-6)
    assert last.cycled != last.accuracy
