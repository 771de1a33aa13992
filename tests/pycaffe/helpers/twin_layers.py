"""Python layers of the twin scripts."""

import ast

import caffe
import numpy as np


class EuclideanLoss(caffe.Layer):
    def setup(self, bottom, top):
        if len(bottom) != 2:
            raise Exception("two bottoms are needed")

    def reshape(self, bottom, top):
        if bottom[0].count != bottom[1].count:
            raise Exception("both must have as many values")
        self.diff = np.zeros_like(bottom[0].data, dtype=np.float32)
        top[0].reshape(1)

    def forward(self, bottom, top):
        self.diff[...] = bottom[0].data - bottom[1].data
        top[0].data[...] = np.sum(self.diff**2) / bottom[0].num / 2.0

    def backward(self, top, propagate_down, bottom):
        for i in range(2):
            if not propagate_down[i]:
                continue
            sign = 1 if i == 0 else -1
            bottom[i].diff[...] = sign * top[0].diff[0] * self.diff / bottom[i].num


class MultilabelData(caffe.Layer):
    def setup(self, bottom, top):
        settings = ast.literal_eval(self.param_str)
        self.batch = settings["batch"]
        self.rng = np.random.RandomState(settings["seed"])
        top[0].reshape(self.batch, 3, 9, 9)
        top[1].reshape(self.batch, 6)

    def reshape(self, bottom, top):
        pass

    def forward(self, bottom, top):
        for i in range(self.batch):
            labels = (self.rng.rand(6) < 0.4).astype(np.float32)
            image = self.rng.rand(3, 9, 9).astype(np.float32)
            for kind in np.flatnonzero(labels):
                image[kind // 2, kind % 2 * 4 :][:5] += 1
            top[0].data[i, ...] = image
            top[1].data[i, ...] = labels

    def backward(self, top, propagate_down, bottom):
        pass
