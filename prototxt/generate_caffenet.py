"""Write CaffeNet's training prototxts for Oxford 102: ``python prototxt/generate_caffenet.py``.

Layers, fillers and multipliers are those of the Model Zoo's bvlc_reference_caffenet, with the
classifier of its Oxford 102 recipe: ``fc8_oxford_102``, at ten times the rate of the other layers.
"""

from collections.abc import Callable, Iterator
from pathlib import Path

_DATA = """layer {{
  name: "data"
  type: "Data"
  top: "data"
  top: "label"
  include {{ phase: {phase} }}
  transform_param {{ {scale}mirror: {mirror} crop_size: 227 mean_file: "mean.binaryproto" }}
  data_param {{ source: "flowers102_{split}_lmdb" batch_size: 50 backend: LMDB }}
}}"""

_LEARNING = """layer {{
  name: "{name}"
  type: "{kind}"
  bottom: "{bottom}"
  top: "{name}"
  param {{ lr_mult: {rate} decay_mult: 1 }}
  param {{ lr_mult: {bias_rate} decay_mult: 0 }}
  {settings} {{
    {shape}
    weight_filler {{ {filler} }}
    bias_filler {{ type: "constant" value: {bias} }}
  }}
}}"""

_LOSS = """layer {
  name: "accuracy"
  type: "Accuracy"
  bottom: "fc8_oxford_102"
  bottom: "label"
  top: "accuracy"
  include { phase: TEST }
}
layer { name: "loss" type: "SoftmaxWithLoss" bottom: "fc8_oxford_102" bottom: "label" top: "loss" }
"""

_CONVOLUTIONS = {
    # number: shape, bias
    1: ("num_output: 96 kernel_size: 11 stride: 4", 0),
    2: ("num_output: 256 pad: 2 kernel_size: 5 group: 2", 1),
    3: ("num_output: 384 pad: 1 kernel_size: 3", 0),
    4: ("num_output: 384 pad: 1 kernel_size: 3 group: 2", 1),
    5: ("num_output: 256 pad: 1 kernel_size: 3 group: 2", 1),
}


class _TrainVal:
    """One training prototxt.

    Args:
        comment: Its first lines.
        dropout: Whether fc6 and fc7 have Dropout.
        scratch: Made for training from random values: inputs and fillers that keep a signal's size
            through eight layers, and no layer faster than the others.
    """

    def __init__(self, comment: str, *, dropout: bool = False, scratch: bool = False) -> None:
        self._comment, self._dropout, self._scratch = comment, dropout, scratch

    def text(self) -> str:
        """The prototxt."""
        comment = "\n".join(f"# {line}" for line in self._comment.splitlines())
        layers = [*self._layers(), _LOSS]
        return "\n".join([comment, 'name: "CaffeNet_oxford102"', *layers])

    def _layers(self) -> Iterator[str]:
        scale = "scale: 0.0078125 " if self._scratch else ""
        yield _DATA.format(phase="TRAIN", mirror="true", split="train", scale=scale)
        yield _DATA.format(phase="TEST", mirror="false", split="test", scale=scale)
        top = "data"
        for number, (shape, bias) in _CONVOLUTIONS.items():
            name = f"conv{number}"
            yield self._learning(name, "Convolution", top, shape, 0.01, bias)
            yield _on_top("ReLU", f"relu{number}", name)
            top = name
            if number in (1, 2, 5):
                yield _then("Pooling", f"pool{number}", name, "pool: MAX kernel_size: 3 stride: 2")
                top = f"pool{number}"
            if number in (1, 2):
                yield _then("LRN", f"norm{number}", top, "local_size: 5 alpha: 0.0001 beta: 0.75")
                top = f"norm{number}"
        for number in (6, 7):
            name = f"fc{number}"
            yield self._learning(name, "InnerProduct", top, "num_output: 4096", 0.005, 1)
            yield _on_top("ReLU", f"relu{number}", name)
            if self._dropout:
                settings = " dropout_param { dropout_ratio: 0.5 }"
                yield _on_top("Dropout", f"drop{number}", name, settings)
            top = name
        rate = 1 if self._scratch else 10
        yield self._learning(
            "fc8_oxford_102", "InnerProduct", top, "num_output: 102", 0.01, 0, rate=rate
        )

    def _learning(
        self, name: str, kind: str, bottom: str, shape: str, std: float, bias: int, rate: int = 1
    ) -> str:
        filler = 'type: "msra"' if self._scratch else f'type: "gaussian" std: {std}'
        return _LEARNING.format(
            name=name,
            kind=kind,
            bottom=bottom,
            shape=shape,
            settings=_settings_of(kind),
            filler=filler,
            bias=0 if self._scratch else bias,
            rate=rate,
            bias_rate=2 * rate,
        )


def _settings_of(kind: str) -> str:
    return {
        "Convolution": "convolution_param",
        "InnerProduct": "inner_product_param",
        "Pooling": "pooling_param",
        "LRN": "lrn_param",
    }[kind]


def _on_top(kind: str, name: str, blob: str, settings: str = "") -> str:
    head = f'layer {{ name: "{name}" type: "{kind}" bottom: "{blob}" top: "{blob}"'
    return f"{head}{settings} }}"


def _then(kind: str, name: str, bottom: str, settings: str) -> str:
    lines = [
        "layer {",
        f'  name: "{name}"',
        f'  type: "{kind}"',
        f'  bottom: "{bottom}"',
        f'  top: "{name}"',
        f"  {_settings_of(kind)} {{ {settings} }}",
        "}",
    ]
    return "\n".join(lines)


def _train_val() -> str:
    return _TrainVal(
        "CaffeNet on Oxford 102 flowers, to be fine-tuned from bvlc_reference_caffenet, as the\n"
        "paper has it: without Dropout (train_val_dropout.prototxt has it)."
    ).text()


def _train_val_dropout() -> str:
    return _TrainVal(
        "CaffeNet on Oxford 102 flowers with Dropout in fc6 and fc7, as in the Model Zoo's recipe.",
        dropout=True,
    ).text()


def _train_val_scratch() -> str:
    return _TrainVal(
        "CaffeNet on Oxford 102 flowers for training from random values: pixels times 1/128,\n"
        "fillers by the number of inputs, one rate for all layers. Not the paper's experiment.",
        scratch=True,
    ).text()


NETWORKS: dict[str, Callable[[], str]] = {
    "caffenet_oxford102/train_val": _train_val,
    "caffenet_oxford102/train_val_dropout": _train_val_dropout,
    "caffenet_oxford102/train_val_scratch": _train_val_scratch,
}


if __name__ == "__main__":
    for place, write in NETWORKS.items():
        path = Path(__file__).parent / f"{place}.prototxt"
        path.parent.mkdir(exist_ok=True)
        path.write_text(write(), encoding="utf-8")
