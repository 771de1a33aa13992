"""``caffe-prune convert --classifier``: a net and its weights with a new classifier."""

from collections.abc import Sequence
from pathlib import Path

import click

from pycaffe_prune.cli.convert.formats import ENDINGS, Conversion, Output, Request
from pycaffe_prune.convert.classifier import Classifier, replace_classifier, without_classifier
from pycaffe_prune.convert.definitions import model_net
from pycaffe_prune.formats.caffe_pb2 import NetParameter
from pycaffe_prune.formats.caffemodel import Caffemodel, write_caffemodel
from pycaffe_prune.formats.files import holds_text
from pycaffe_prune.formats.prototxt import read_net, write_prototxt
from pycaffe_prune.formats.weights import read_weights
from pycaffe_prune.net.fit import require_fitting
from pycaffe_prune.net.state_wish import in_wished_state, with_state_of
from pycaffe_prune.pruning.counts import require_finite

__all__ = ["new_classifiers", "parse_classifiers"]


def parse_classifiers(
    _ctx: click.Context, _param: click.Parameter, texts: tuple[str, ...]
) -> list[Classifier]:
    """Read each ``OLD=NEW:N``."""
    return [_parsed(text) for text in texts]


def _parsed(text: str) -> Classifier:
    names, _, count = text.rpartition(":")
    old, equals, new = names.partition("=")
    if not (old and equals and new and count.isdecimal()):
        raise click.BadParameter(f"'{text}' is not of the form fc8=fc8_oxford_102:102")
    return Classifier(old, new, int(count))


def new_classifiers(request: Request, wanted: Sequence[Classifier]) -> Conversion:
    """Give a net new classifiers: of a prototxt comes a prototxt, of weights both files.

    ``--out`` names a folder, or one of the files by its ending: the other then lies beside it.
    """
    if holds_text(request.source):
        original, model = read_net(request.source), None
        net = in_wished_state(original, request.state, request.source)
    else:
        model = read_weights(request.source)
        original = model_net(model) if request.net is None else read_net(request.net)
        net = in_wished_state(original, request.state, request.net or request.source)
        require_fitting(net, model, request.inputs)
        require_finite(model, [layer.name for layer in model.layers])
    for classifier in wanted:
        net = replace_classifier(net, classifier)
        model = None if model is None else without_classifier(model, classifier)
    net = with_state_of(net, original)
    if model is None:
        is_file = bool(request.out.suffix) and not request.out.is_dir()
        path = request.out if is_file else request.out / "net.prototxt"
        return Conversion([Output(path, lambda path: write_prototxt(path, net))])
    return _pair(request, model, net)


def _pair(request: Request, model: Caffemodel, net: NetParameter) -> Conversion:
    out = request.out
    if out.suffix in {".caffemodel", ".prototxt"} and not out.is_dir():
        net_path, weights = out.with_suffix(".prototxt"), out.with_suffix(".caffemodel")
    else:
        net_path, weights = out / "net.prototxt", out / f"{_stem(request.source)}.caffemodel"
    return Conversion(
        [
            Output(net_path, lambda path: write_prototxt(path, net)),
            Output(weights, lambda path: write_caffemodel(path, model)),
        ]
    )


def _stem(source: Path) -> str:
    """The name of a file of weights without its ending, as in model.v2.caffemodel: model.v2."""
    endings = sorted(ENDINGS, key=len, reverse=True)
    ending = next((one for one in endings if source.name.endswith(one)), source.suffix)
    return source.name[: len(source.name) - len(ending)]
