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


class SegmentationData(caffe.Layer):
    """One picture a pass, each of another size, with a label for each pixel (255 for none)."""

    def setup(self, bottom, top):
        if len(top) != 2 or len(bottom) != 0:
            raise Exception("two tops and no bottom are needed")
        self.rng = np.random.RandomState(ast.literal_eval(self.param_str)["seed"])
        self.sizes = [(14, 12), (9, 17), (14, 12)]
        self.index = 0

    def reshape(self, bottom, top):
        height, width = self.sizes[self.index]
        self.image = self.rng.randn(3, height, width).astype(np.float32)
        self.label = (self.image[:1] > 0).astype(int) + (self.image[1:2] > 1)
        self.label = np.where(self.image[2:] > 1.5, 255, self.label)
        top[0].reshape(1, *self.image.shape)
        top[1].reshape(1, *self.label.shape)

    def forward(self, bottom, top):
        top[0].data[...] = self.image
        top[1].data[...] = self.label
        self.index = (self.index + 1) % len(self.sizes)

    def backward(self, top, propagate_down, bottom):
        pass
