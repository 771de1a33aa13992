"""Write the recurrent networks of the paper's Table 1: ``python prototxt/generate_recurrent.py``.

The recurrences of both Deep Speech networks are clipped ReLUs without an output of their own, which
no layer of stock Caffe is; they are unrolled here, each step sharing its weights by their names.
"""

from collections.abc import Callable
from pathlib import Path

_WIDTH = 100
_FILLER = 'weight_filler { type: "xavier" }'


class _Net:
    """A net being written, layer by layer; every method returns the top it makes."""

    def __init__(self, comment: str, name: str) -> None:
        self._parts = [f"# {line}" for line in comment.splitlines()] + [f'name: "{name}"']

    def text(self) -> str:
        """The prototxt."""
        return "\n".join(self._parts) + "\n"

    def add(self, name: str, kind: str, bottoms: list[str], tops: list[str], *said: str) -> str:
        fields = [f'name: "{name}"', f'type: "{kind}"']
        fields += [f'bottom: "{bottom}"' for bottom in bottoms]
        fields += [*(f'top: "{top}"' for top in tops), *said]
        line = "layer { " + " ".join(fields) + " }"
        if len(line) > _WIDTH:
            line = "\n".join(["layer {", *(f"  {field}" for field in fields), "}"])
        self._parts.append(line)
        return tops[0]

    def input(self, name: str, *shape: int) -> str:
        dims = " ".join(f"dim: {extent}" for extent in shape)
        return self.add(name, "Input", [], [name], f"input_param {{ shape {{ {dims} }} }}")

    def fc(self, name: str, bottom: str, outputs: int, *said: str, more: str = "") -> str:
        settings = " ".join(f"num_output: {outputs} {more} {_FILLER}".split())
        told = f"inner_product_param {{ {settings} }}"
        return self.add(name, "InnerProduct", [bottom], [name], *said, told)

    def clip(self, name: str, blob: str) -> str:
        return self.add(name, "Clip", [blob], [blob], "clip_param { min: 0 max: 20 }")

    def eltwise(self, name: str, bottoms: list[str]) -> str:
        return self.add(name, "Eltwise", bottoms, [name])

    def normalized(self, suffix: str, blob: str) -> str:
        self.add(f"bn_{suffix}", "BatchNorm", [blob], [blob])
        return self.add(
            f"scale_{suffix}", "Scale", [blob], [blob], "scale_param { bias_term: true }"
        )

    def steps(self, name: str, blob: str, count: int, axis: int) -> list[str]:
        """Cut a blob into so many steps along an axis."""
        tops = [f"{name}_{step}" for step in range(1, count + 1)]
        self.add(name, "Slice", [blob], tops, f"slice_param {{ axis: {axis} }}")
        return tops

    def rows(self, name: str, steps: list[str]) -> str:
        """All steps one below the other."""
        return self.add(name, "Concat", steps, [name], "concat_param { axis: 0 }")

    def both_ways(self, name: str, steps: list[str], units: int) -> list[str]:
        """A recurrence forward and one backward through the steps; their sum at each."""
        ways = []
        for way, ordered in (("forward", steps), ("backward", steps[::-1])):
            made: list[str] = []
            for step in ordered:
                number = step.rpartition("_")[2]
                top = step
                if made:
                    shared = f'param {{ name: "{name}_{way}" }}'
                    before = self.fc(
                        f"{name}_{way}_{number}_from", made[-1], units, shared,
                        more="bias_term: false",
                    )  # fmt: skip
                    top = self.eltwise(f"{name}_{way}_{number}_sum", [step, before])
                clipped = f"{name}_{way}_{number}"
                told = "clip_param { min: 0 max: 20 }"
                made.append(self.add(clipped, "Clip", [top], [clipped], told))
            ways.append(made if way == "forward" else made[::-1])
        return [
            self.eltwise(f"{name}_{number}", [one, other])
            for number, (one, other) in enumerate(zip(*ways, strict=True), 1)
        ]


def neural_talk(
    words: int = 20,
    sentences: int = 1,
    features: int = 4096,
    units: int = 512,
    vocabulary: int = 2539,
) -> str:
    """NeuralTalk's captions by an LSTM, for sentences of so many words."""
    net = _Net(
        "NeuralTalk, for use: 4096 features of an image (fc7 of VGG-16), then its words.\n"
        "The first step's scores are of no use: the image alone has been seen.",
        "NeuralTalk",
    )
    image = net.input("image", 1, sentences, features)
    index = net.input("words", words, sentences)
    marks = net.input("cont", words + 1, sentences)
    encoded = net.fc("encode_image", image, units, more="axis: 2")
    told = f"num_output: {units} input_dim: {vocabulary} bias_term: false {_FILLER}"
    embedded = net.add("embed", "Embed", [index], ["embed"], f"embed_param {{ {told} }}")
    steps = net.rows("steps", [encoded, embedded])
    told = f"recurrent_param {{ num_output: {units} {_FILLER} }}"
    hidden = net.add("lstm", "LSTM", [steps, marks], ["lstm"], told)
    scores = net.fc("decode", hidden, vocabulary, more="axis: 2")
    net.add("prob", "Softmax", [scores], ["prob"], "softmax_param { axis: 2 }")
    return net.text()


def deep_speech(
    steps: int = 8, utterances: int = 1, bins: int = 161, units: int = 1024, letters: int = 29
) -> str:
    """Deep Speech with one recurrent layer, unrolled for so many steps."""
    context = 11
    net = _Net(
        f"Deep Speech, for use: {bins} bins of sound, {context - 1} frames more than steps.\n"
        f"The recurrence is unrolled for {steps} steps; a row of the scores for each.",
        "DeepSpeech",
    )
    sound = net.input("sound", utterances, 1, bins, steps + context - 1)
    told = f"num_output: {units} kernel_h: {bins} kernel_w: {context} {_FILLER}"
    first = net.add("layer0", "Convolution", [sound], ["layer0"], f"convolution_param {{ {told} }}")
    top = net.rows("frames", net.steps("frame", net.clip("clip0", first), steps, 3))
    for number in (1, 2):
        top = net.clip(f"clip{number}", net.fc(f"layer{number}", top, units))
    inputs = net.steps("input3", net.fc("layer3", top, units), steps, 0)
    top = net.rows("layer3_sums", net.both_ways("layer3", inputs, units))
    top = net.clip("clip4", net.fc("layer4", top, units))
    net.add("prob", "Softmax", [net.fc("letters", top, letters)], ["prob"])
    return net.text()


def deep_speech_2(
    steps: int = 8,
    utterances: int = 1,
    units: int = 1760,
    filters: int = 32,
    layers: int = 7,
    letters: int = 54,
) -> str:
    """Deep Speech 2 with so many recurrent layers, unrolled for so many steps."""
    net = _Net(
        "Deep Speech 2, for use: 161 bins of a spectrogram, two frames for each step.\n"
        f"The recurrences are unrolled for {steps} steps; a row of the scores for each.",
        "DeepSpeech2",
    )
    top, bins = net.input("sound", utterances, 1, 161, 2 * steps), 161
    for number, height, stride in ((1, 41, 2), (2, 21, 1)):
        told = (
            f"num_output: {filters} kernel_h: {height} kernel_w: 11 pad_h: {height // 2} pad_w: 5 "
            f"stride_h: 2 stride_w: {stride} bias_term: false {_FILLER}"
        )
        top = net.add(
            f"conv{number}",
            "Convolution",
            [top],
            [f"conv{number}"],
            f"convolution_param {{ {told} }}",
        )
        bins = (bins + 1) // 2
        # A mean, a factor and so on for each bin of each filter.
        shape = f"reshape_param {{ shape {{ dim: 0 dim: {filters * bins} dim: -1 }} }}"
        top = net.add(f"flat{number}", "Reshape", [top], [f"flat{number}"], shape)
        top = net.clip(f"clip{number}", net.normalized(f"conv{number}", top))
        shape = f"reshape_param {{ shape {{ dim: 0 dim: {filters} dim: {bins} dim: -1 }} }}"
        top = net.add(f"bins{number}", "Reshape", [top], [f"bins{number}"], shape)
    cut = net.steps("frame", top, steps, 3)
    for number in range(1, layers + 1):
        name = f"recurrent{number}"
        rows = net.rows(f"rows{number}", cut)
        rows = net.normalized(name, net.fc(name, rows, units, more="bias_term: false"))
        cut = net.both_ways(name, net.steps(f"input{number}", rows, steps, 0), units)
    top = net.fc("fc", net.rows("last_rows", cut), units, more="bias_term: false")
    top = net.clip("clip_fc", net.normalized("fc", top))
    net.add("prob", "Softmax", [net.fc("letters", top, letters)], ["prob"])
    return net.text()


NETWORKS: dict[str, Callable[[], str]] = {
    "deep_speech/deploy": deep_speech,
    "deep_speech_2/deploy": deep_speech_2,
    "neural_talk/deploy": neural_talk,
}


if __name__ == "__main__":
    for place, write in NETWORKS.items():
        path = Path(__file__).parent / f"{place}.prototxt"
        path.parent.mkdir(exist_ok=True)
        path.write_text(write(), encoding="utf-8")
