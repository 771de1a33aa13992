"""A stranger's module: whoever imports it runs it."""

import os
from pathlib import Path

import caffe

Path(os.environ["PWNED"]).write_text("code of a stranger ran")


class L(caffe.Layer):
    """A layer without a bottom, whose top is one 1."""

    def setup(self, bottom, top):
        pass

    def reshape(self, bottom, top):  # noqa: ARG002
        top[0].reshape(1)

    def forward(self, bottom, top):  # noqa: ARG002
        top[0].data[...] = 1

    def backward(self, top, propagate_down, bottom):
        pass
