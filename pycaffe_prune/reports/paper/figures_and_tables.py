"""The paper as data: its tables, the axes of its figures and its baselines.

Source: a conference paper of 2017, in Japanese, that removes parameters of fully connected (FC)
layers connection by connection and unit by unit and compares the two. It was read from a damaged
scan, so what is not beyond doubt carries a grade. The points of figures 5 to 7 cannot be read
from the scan; figure 7's connection curve is table 5 from alpha 1.0 on.

All rates count the weights of FC layers only: convolutions and biases are in neither numerator
nor denominator (the "all FC" column of table 5 is the weighted mean of its layers).
"""

from typing import Literal, NamedTuple

__all__ = [
    "BASELINES",
    "FIGURES",
    "NETWORKS",
    "SOURCE",
    "TABLE_1",
    "TABLE_5",
    "Axis",
    "Baseline",
    "Figure",
    "Grade",
    "LayerWeights",
    "Network",
    "Parameters",
    "Rates",
]

Grade = Literal["certain", "likely", "uncertain"]

SOURCE = (
    "conference paper of 2017 (in Japanese) on removing parameters of fully connected layers, "
    "connections against units, done with Caffe and PyCaffe"
)


class Parameters(NamedTuple):
    """A row of table 1: how many parameters networks of the time have."""

    network: str
    parameters: float
    data: str


TABLE_1 = (
    Parameters("LeNet-300-100", 266e3, "MNIST"),
    Parameters("LeNet-5", 431e3, "MNIST"),
    Parameters("AlexNet", 61e6, "ImageNet"),
    Parameters("VGG-16", 138e6, "ImageNet"),
    Parameters("GoogLeNet", 13e6, "ImageNet"),
    Parameters("ResNet-50", 25e6, "ImageNet"),
    Parameters("ResNet-152", 60e6, "ImageNet"),
    Parameters("SqueezeNet", 1.2e6, "ImageNet"),
    Parameters("DeepSpeech", 8e6, "WSJ"),
    Parameters("DeepSpeech-2", 67e6, "Baidu"),
    Parameters("NeuralTalk", 6.8e6, "Flickr-8K"),
)


class LayerWeights(NamedTuple):
    """Weights of one layer, biases left out, and their share of the network as printed (%)."""

    layer: str
    weights: int
    share: float


class Network(NamedTuple):
    """Tables 2, 3 and 4: the weights of one of the three networks, layer by layer."""

    table: int
    title: str
    layers: tuple[LayerWeights, ...]
    fully_connected: tuple[str, ...]

    @property
    def weights(self) -> int:
        """Weights of the whole network, biases left out."""
        return sum(layer.weights for layer in self.layers)

    @property
    def fc_weights(self) -> int:
        """Weights of the FC layers: the denominator of every reduction rate."""
        return sum(layer.weights for layer in self.layers if layer.layer in self.fully_connected)


NETWORKS = {
    "lenet-300-100": Network(
        2,
        "LeNet-300-100",
        (
            LayerWeights("ip1", 300 * 784, 88.35),
            LayerWeights("ip2", 100 * 300, 11.27),
            LayerWeights("ip3", 10 * 100, 0.38),
        ),
        ("ip1", "ip2", "ip3"),
    ),
    "lenet-5": Network(
        3,
        "LeNet-5",
        (
            LayerWeights("conv1", 20 * 1 * 5 * 5, 0.12),
            LayerWeights("conv2", 50 * 20 * 5 * 5, 5.81),
            LayerWeights("ip1", 500 * 800, 92.92),
            LayerWeights("ip2", 10 * 500, 1.16),
        ),
        ("ip1", "ip2"),
    ),
    "caffenet-oxford102": Network(
        4,
        "CaffeNet, 102 outputs",
        (
            LayerWeights("conv1", 34_848, 0.06),
            LayerWeights("conv2", 307_200, 0.54),
            LayerWeights("conv3", 884_736, 1.54),
            LayerWeights("conv4", 663_552, 1.16),
            LayerWeights("conv5", 442_368, 0.77),
            LayerWeights("fc6", 37_748_736, 65.91),
            LayerWeights("fc7", 16_777_216, 29.29),
            LayerWeights("fc8", 417_792, 0.73),
        ),
        ("fc6", "fc7", "fc8"),
    ),
}
"""By the experiment's name."""


class Rates(NamedTuple):
    """A row of table 5: connection pruning of CaffeNet; reduction rates and accuracy in %."""

    alpha: float
    fc6: float
    fc7: float
    fc8: float
    all_fc: float
    accuracy: float


TABLE_5 = (
    Rates(0.5, 49.54, 47.13, 57.21, 48.86, 91.66),
    Rates(0.6, 57.54, 55.14, 64.99, 56.86, 91.39),
    Rates(0.8, 70.96, 69.04, 76.44, 70.42, 91.16),
    Rates(1.0, 80.97, 79.77, 83.74, 80.62, 91.11),
    Rates(1.3, 90.51, 90.27, 90.01, 90.43, 91.02),
    Rates(1.5, 94.16, 94.28, 92.45, 94.18, 90.69),
    Rates(1.6, 95.44, 95.64, 93.38, 95.49, 90.53),
    Rates(1.7, 96.41, 96.66, 94.20, 96.47, 89.84),
    Rates(1.8, 97.17, 97.43, 94.88, 97.23, 89.94),
    Rates(1.9, 97.75, 98.02, 95.45, 97.81, 89.45),
    Rates(2.0, 98.20, 98.45, 95.94, 98.26, 89.56),
    Rates(2.2, 98.80, 99.03, 96.74, 98.85, 88.97),
    Rates(2.4, 99.19, 99.40, 97.41, 99.24, 87.74),
    Rates(2.6, 99.46, 99.64, 97.95, 99.50, 87.08),
)


class Axis(NamedTuple):
    """An axis in %: first value, last value and the distance of its ticks."""

    low: float
    high: float
    tick: float


class Figure(NamedTuple):
    """Accuracy (y, %) against the FC parameter reduction rate (x, %); all of it certain."""

    number: int
    title: str
    x: Axis
    y: Axis
    curves: tuple[str, ...]


_CURVES = ("units", "connections", "baseline")

FIGURES = {
    "lenet-300-100": Figure(
        5, "LeNet-300-100", Axis(80, 100, 2), Axis(90, 99, 1), (*_CURVES, "small")
    ),
    "lenet-5": Figure(6, "LeNet-5", Axis(80, 100, 2), Axis(96, 99.5, 0.5), (*_CURVES, "small")),
    "caffenet-oxford102": Figure(7, "CaffeNet", Axis(80, 100, 2), Axis(87.5, 92.5, 0.5), _CURVES),
}
"""By the experiment's name."""


class Baseline(NamedTuple):
    """Accuracy of an unpruned network as the paper gives it."""

    accuracy: str
    grade: Grade


BASELINES = {
    "lenet-300-100": Baseline("98.x %", "certain"),  # the decimals are lost in the scan
    "lenet-5": Baseline("99.10 %", "certain"),
    "caffenet-oxford102": Baseline("91.82 %", "certain"),
}
"""By the experiment's name."""
