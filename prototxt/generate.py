"""Write the deploy prototxts of the published networks: ``python prototxt/generate.py``.

The layer names are those of the public models, so that their weights load. Convolutions and
InnerProducts have a filler: without a caffemodel they get weights that carry a signal on.
"""

from collections.abc import Callable
from pathlib import Path

_WIDTH = 100
_FILLER = '{ type: "msra" }'


def _message(name: str, **fields: int | float | str | None) -> str:
    """One message on one line; fields that are None are left out."""
    values = [f"{key}: {value}" for key, value in fields.items() if value is not None]
    return " ".join([name, "{", *values, "}"]).replace(": {", " {")


class _Net:
    """A net being written, layer by layer; every method returns the top it makes."""

    def __init__(self, comment: str, name: str, *shape: int) -> None:
        self._parts = [f"# {line}" for line in comment.splitlines()] + [f'name: "{name}"']
        self._include: list[str] = []
        dims = " ".join(f"dim: {extent}" for extent in shape)
        self._add("data", "Input", [], "data", f"input_param {{ shape {{ {dims} }} }}")

    def text(self) -> str:
        """The prototxt."""
        return "\n".join(self._parts) + "\n"

    def only_in_training(self) -> None:
        """Put the layers that follow into the TRAIN net alone."""
        self._include = ["include { phase: TRAIN }"]

    def in_both_phases(self) -> None:
        """Put the layers that follow into both nets again."""
        self._include = []

    def _add(self, name: str, kind: str, bottoms: list[str], top: str, *settings: str) -> str:
        fields = [f'name: "{name}"', f'type: "{kind}"']
        fields += [f'bottom: "{bottom}"' for bottom in bottoms]
        fields += [f'top: "{top}"', *self._include, *settings]
        line = "layer { " + " ".join(fields) + " }"
        if len(line) > _WIDTH:
            line = "\n".join(["layer {", *(f"  {field}" for field in fields), "}"])
        self._parts.append(line)
        return top

    def conv(
        self,
        name: str,
        bottom: str,
        num_output: int,
        kernel_size: int,
        *,
        pad: int | None = None,
        stride: int | None = None,
        group: int | None = None,
        bias_term: str | None = None,
    ) -> str:
        settings = _message(
            "convolution_param",
            num_output=num_output,
            pad=pad,
            kernel_size=kernel_size,
            stride=stride,
            group=group,
            bias_term=bias_term,
            weight_filler=_FILLER,
        )
        return self._add(name, "Convolution", [bottom], name, settings)

    def fc(self, name: str, bottom: str, num_output: int) -> str:
        settings = _message("inner_product_param", num_output=num_output, weight_filler=_FILLER)
        return self._add(name, "InnerProduct", [bottom], name, settings)

    def relu(self, name: str, blob: str) -> str:
        return self._add(name, "ReLU", [blob], blob)

    def dropout(self, name: str, blob: str, ratio: float) -> str:
        settings = _message("dropout_param", dropout_ratio=ratio)
        return self._add(name, "Dropout", [blob], blob, settings)

    def pool(
        self,
        name: str,
        bottom: str,
        kind: str,
        kernel_size: int,
        stride: int,
        pad: int | None = None,
    ) -> str:
        settings = _message(
            "pooling_param", pool=kind, kernel_size=kernel_size, stride=stride, pad=pad
        )
        return self._add(name, "Pooling", [bottom], name, settings)

    def global_average(self, name: str, bottom: str) -> str:
        settings = _message("pooling_param", pool="AVE", global_pooling="true")
        return self._add(name, "Pooling", [bottom], name, settings)

    def lrn(self, name: str, bottom: str) -> str:
        settings = _message("lrn_param", local_size=5, alpha=0.0001, beta=0.75)
        return self._add(name, "LRN", [bottom], name, settings)

    def concat(self, name: str, bottoms: list[str]) -> str:
        return self._add(name, "Concat", bottoms, name)

    def eltwise(self, name: str, bottoms: list[str]) -> str:
        return self._add(name, "Eltwise", bottoms, name)

    def batch_norm_and_scale(self, suffix: str, blob: str) -> str:
        settings = _message("batch_norm_param", use_global_stats="true")
        self._add(f"bn{suffix}", "BatchNorm", [blob], blob, settings)
        scale = _message("scale_param", bias_term="true")
        return self._add(f"scale{suffix}", "Scale", [blob], blob, scale)

    def softmax(self, bottom: str) -> str:
        return self._add("prob", "Softmax", [bottom], "prob")


def _lenet() -> str:
    net = _Net(
        "LeNet-5 as in Caffe's MNIST tutorial, for use: 1x28x28 pixels times 1/256 in.",
        "LeNet",
        *(1, 1, 28, 28),
    )
    top = net.conv("conv1", "data", 20, 5, stride=1)
    top = net.pool("pool1", top, "MAX", 2, 2)
    top = net.conv("conv2", top, 50, 5, stride=1)
    top = net.pool("pool2", top, "MAX", 2, 2)
    top = net.relu("relu1", net.fc("ip1", top, 500))
    net.softmax(net.fc("ip2", top, 10))
    return net.text()


def _cifar10_quick() -> str:
    net = _Net(
        "CIFAR-10 quick, for use: 3x32x32 RGB pixels minus the mean image in.",
        "CIFAR10_quick",
        *(1, 3, 32, 32),
    )
    top = net.conv("conv1", "data", 32, 5, pad=2, stride=1)
    top = net.relu("relu1", net.pool("pool1", top, "MAX", 3, 2))
    top = net.relu("relu2", net.conv("conv2", top, 32, 5, pad=2, stride=1))
    top = net.pool("pool2", top, "AVE", 3, 2)
    top = net.relu("relu3", net.conv("conv3", top, 64, 5, pad=2, stride=1))
    top = net.pool("pool3", top, "AVE", 3, 2)
    top = net.fc("ip1", top, 64)
    net.softmax(net.fc("ip2", top, 10))
    return net.text()


def _alex(net: _Net, after_conv: Callable[[int, str], str]) -> str:
    """The five convolutions that AlexNet and CaffeNet share; returns their top."""
    top = after_conv(1, net.relu("relu1", net.conv("conv1", "data", 96, 11, stride=4)))
    top = after_conv(2, net.relu("relu2", net.conv("conv2", top, 256, 5, pad=2, group=2)))
    top = net.relu("relu3", net.conv("conv3", top, 384, 3, pad=1))
    top = net.relu("relu4", net.conv("conv4", top, 384, 3, pad=1, group=2))
    top = net.relu("relu5", net.conv("conv5", top, 256, 3, pad=1, group=2))
    return net.pool("pool5", top, "MAX", 3, 2)


def _classifier(net: _Net, top: str) -> None:
    for number in (6, 7):
        top = net.relu(f"relu{number}", net.fc(f"fc{number}", top, 4096))
        top = net.dropout(f"drop{number}", top, 0.5)
    net.softmax(net.fc("fc8", top, 1000))


def _alexnet() -> str:
    net = _Net(
        "AlexNet, for use: 3x227x227 BGR pixels minus the ImageNet mean in.",
        "AlexNet",
        *(1, 3, 227, 227),
    )

    def norm_then_pool(number: int, bottom: str) -> str:
        return net.pool(f"pool{number}", net.lrn(f"norm{number}", bottom), "MAX", 3, 2)

    _classifier(net, _alex(net, norm_then_pool))
    return net.text()


def _caffenet() -> str:
    net = _Net(
        "CaffeNet, for use: 3x227x227 BGR pixels minus the ImageNet mean in.",
        "CaffeNet",
        *(1, 3, 227, 227),
    )

    _classifier(net, _caffenet_convolutions(net))
    return net.text()


def _caffenet_convolutions(net: _Net) -> str:
    def pool_then_norm(number: int, bottom: str) -> str:
        return net.lrn(f"norm{number}", net.pool(f"pool{number}", bottom, "MAX", 3, 2))

    return _alex(net, pool_then_norm)


def _caffenet_oxford102() -> str:
    net = _Net(
        "CaffeNet on Oxford 102 flowers, for use: 3x227x227 BGR pixels minus the mean image in.",
        "CaffeNet_oxford102",
        *(1, 3, 227, 227),
    )
    top = _caffenet_convolutions(net)
    for number in (6, 7):
        top = net.relu(f"relu{number}", net.fc(f"fc{number}", top, 4096))
    net.softmax(net.fc("fc8_oxford_102", top, 102))
    return net.text()


def _vgg_16() -> str:
    net = _Net(
        "VGG-16, for use: 3x224x224 BGR pixels minus 103.939, 116.779, 123.68 in.",
        "VGG_ILSVRC_16_layers",
        *(1, 3, 224, 224),
    )
    top = "data"
    for block, (convs, filters) in enumerate([(2, 64), (2, 128), (3, 256), (3, 512), (3, 512)], 1):
        for conv in range(1, convs + 1):
            name = f"{block}_{conv}"
            top = net.relu(f"relu{name}", net.conv(f"conv{name}", top, filters, 3, pad=1))
        top = net.pool(f"pool{block}", top, "MAX", 2, 2)
    _classifier(net, top)
    return net.text()


def _squeezenet(squeeze: str, expand1: str, expand3: str, last: str) -> str:
    net = _Net(
        "SqueezeNet v1.0, for use: 3x227x227 BGR pixels minus 104, 117, 123 in.",
        "SqueezeNet",
        *(1, 3, 227, 227),
    )

    def fire(number: int, bottom: str, squeezed: int, expanded: int) -> str:
        def conv(name: str, bottom: str, filters: int, size: int) -> str:
            top = net.conv(f"fire{number}/{name}", bottom, filters, size, pad=size // 2 or None)
            return net.relu(f"fire{number}/relu_{name}", top)

        few = conv(squeeze, bottom, squeezed, 1)
        many = [conv(expand1, few, expanded, 1), conv(expand3, few, expanded, 3)]
        return net.concat(f"fire{number}/concat", many)

    top = net.relu("relu_conv1", net.conv("conv1", "data", 96, 7, stride=2))
    top = net.pool("pool1", top, "MAX", 3, 2)
    for number, squeezed in enumerate([16, 16, 32, 32, 48, 48, 64, 64], 2):
        top = fire(number, top, squeezed, 4 * squeezed)
        if number in (4, 8):
            top = net.pool(f"pool{number}", top, "MAX", 3, 2)
    top = net.dropout("drop9", top, 0.5)
    top = net.relu(f"relu_conv{last}", net.conv(f"conv{last}", top, 1000, 1, pad=1))
    net.softmax(net.global_average(f"pool{last}", top))
    return net.text()


def _squeezenet_v1_0() -> str:
    return _squeezenet("squeeze1x1", "expand1x1", "expand3x3", "10")


def _squeezenet_v1_0_firenet() -> str:
    return _squeezenet("conv1x1_1", "conv1x1_2", "conv3x3_2", "_final")


_INCEPTIONS = {
    # 1x1, 3x3_reduce, 3x3, 5x5_reduce, 5x5, pool_proj (table 1 of Szegedy et al.)
    "3a": (64, 96, 128, 16, 32, 32),
    "3b": (128, 128, 192, 32, 96, 64),
    "4a": (192, 96, 208, 16, 48, 64),
    "4b": (160, 112, 224, 24, 64, 64),
    "4c": (128, 128, 256, 24, 64, 64),
    "4d": (112, 144, 288, 32, 64, 64),
    "4e": (256, 160, 320, 32, 128, 128),
    "5a": (256, 160, 320, 32, 128, 128),
    "5b": (384, 192, 384, 48, 128, 128),
}


def _googlenet() -> str:
    net = _Net(
        "GoogLeNet (Inception v1), for use: 3x224x224 BGR pixels minus 104, 117, 123 in.\n"
        "The two auxiliary heads, loss1 and loss2, are there in the phase TRAIN only.",
        "GoogleNet",
        *(1, 3, 224, 224),
    )

    def conv(
        stage: str,
        name: str,
        bottom: str,
        filters: int,
        size: int,
        stride: int | None = None,
        suffix: str = "",
    ) -> str:
        pad = size // 2 or None
        top = net.conv(f"{stage}/{name}{suffix}", bottom, filters, size, pad=pad, stride=stride)
        return net.relu(f"{stage}/relu_{name}", top)

    def inception(stage: str, bottom: str) -> str:
        n1, n3_reduce, n3, n5_reduce, n5, n_proj = _INCEPTIONS[stage]
        stage = f"inception_{stage}"
        tops = [conv(stage, "1x1", bottom, n1, 1)]
        tops.append(conv(stage, "3x3", conv(stage, "3x3_reduce", bottom, n3_reduce, 1), n3, 3))
        tops.append(conv(stage, "5x5", conv(stage, "5x5_reduce", bottom, n5_reduce, 1), n5, 5))
        pooled = net.pool(f"{stage}/pool", bottom, "MAX", 3, 1, 1)
        tops.append(conv(stage, "pool_proj", pooled, n_proj, 1))
        return net.concat(f"{stage}/output", tops)

    def auxiliary(head: str, bottom: str) -> None:
        net.only_in_training()
        top = net.pool(f"{head}/ave_pool", bottom, "AVE", 5, 3)
        top = conv(head, "conv", top, 128, 1)
        top = net.relu(f"{head}/relu_fc", net.fc(f"{head}/fc", top, 1024))
        net.fc(f"{head}/classifier", net.dropout(f"{head}/drop_fc", top, 0.7), 1000)
        net.in_both_phases()

    top = conv("conv1", "7x7", "data", 64, 7, 2, "_s2")
    top = net.lrn("pool1/norm1", net.pool("pool1/3x3_s2", top, "MAX", 3, 2))
    top = conv("conv2", "3x3", conv("conv2", "3x3_reduce", top, 64, 1), 192, 3)
    top = net.pool("pool2/3x3_s2", net.lrn("conv2/norm2", top), "MAX", 3, 2)
    for stage in _INCEPTIONS:
        top = inception(stage, top)
        if stage in ("3b", "4e"):
            top = net.pool(f"pool{stage[0]}/3x3_s2", top, "MAX", 3, 2)
        if stage in ("4a", "4d"):
            auxiliary("loss1" if stage == "4a" else "loss2", top)
    top = net.pool("pool5/7x7_s1", top, "AVE", 7, 1)
    net.softmax(net.fc("loss3/classifier", net.dropout("pool5/drop_7x7_s1", top, 0.4), 1000))
    return net.text()


def _resnet(name: str, blocks: list[list[str]], bias_of_conv1: str | None) -> str:
    net = _Net(
        f"{name}, for use: 3x224x224 BGR pixels minus the mean of ImageNet in.",
        name,
        *(1, 3, 224, 224),
    )

    def branch(suffix: str, bottom: str, filters: int, size: int, stride: int) -> str:
        pad, blob = size // 2, f"res{suffix}"
        net.conv(blob, bottom, filters, size, pad=pad, stride=stride, bias_term="false")
        return net.batch_norm_and_scale(suffix, blob)

    def block(stage: str, bottom: str, filters: int, stride: int, shortcut: bool) -> str:
        short = bottom
        if shortcut:
            short = branch(f"{stage}_branch1", bottom, 4 * filters, 1, stride)
        top = branch(f"{stage}_branch2a", bottom, filters, 1, stride)
        net.relu(f"res{stage}_branch2a_relu", top)
        top = branch(f"{stage}_branch2b", top, filters, 3, 1)
        net.relu(f"res{stage}_branch2b_relu", top)
        top = branch(f"{stage}_branch2c", top, 4 * filters, 1, 1)
        return net.relu(f"res{stage}_relu", net.eltwise(f"res{stage}", [short, top]))

    top = net.conv("conv1", "data", 64, 7, pad=3, stride=2, bias_term=bias_of_conv1)
    top = net.relu("conv1_relu", net.batch_norm_and_scale("_conv1", top))
    top = net.pool("pool1", top, "MAX", 3, 2)
    for stage, names in enumerate(blocks, 2):
        for place, letter in enumerate(names):
            stride = 2 if place == 0 and stage > 2 else 1
            top = block(f"{stage}{letter}", top, 32 * 2 ** (stage - 1), stride, place == 0)
    top = net.pool("pool5", top, "AVE", 7, 1)
    net.softmax(net.fc("fc1000", top, 1000))
    return net.text()


def _resnet_50() -> str:
    return _resnet("ResNet-50", [list("abc"), list("abcd"), list("abcdef"), list("abc")], None)


def _resnet_152() -> str:
    def numbered(count: int) -> list[str]:
        return ["a", *(f"b{number}" for number in range(1, count))]

    blocks = [list("abc"), numbered(8), numbered(36), list("abc")]
    return _resnet("ResNet-152", blocks, "false")


NETWORKS: dict[str, Callable[[], str]] = {
    "alexnet/deploy": _alexnet,
    "caffenet/deploy": _caffenet,
    "caffenet_oxford102/deploy": _caffenet_oxford102,
    "cifar10_quick/deploy": _cifar10_quick,
    "googlenet/deploy": _googlenet,
    "lenet/deploy": _lenet,
    "resnet_152/deploy": _resnet_152,
    "resnet_50/deploy": _resnet_50,
    "squeezenet_v1.0/deploy": _squeezenet_v1_0,
    "squeezenet_v1.0/deploy_firenet": _squeezenet_v1_0_firenet,
    "vgg_16/deploy": _vgg_16,
}


if __name__ == "__main__":
    for place, write in NETWORKS.items():
        path = Path(__file__).parent / f"{place}.prototxt"
        path.parent.mkdir(exist_ok=True)
        path.write_text(write(), encoding="utf-8")
