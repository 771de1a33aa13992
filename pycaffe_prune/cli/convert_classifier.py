"""``caffe-prune convert --classifier``: a net and its weights with a new classifier."""

from collections.abc import Sequence

import click

from pycaffe_prune.cli.convert_formats import Conversion, Output, Request
from pycaffe_prune.convert.classifier import Classifier, replace_classifier, without_classifier
from pycaffe_prune.convert.definitions import model_net
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
    """Give a net new classifiers: a prototxt becomes a prototxt, weights a folder with both."""
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
        return Conversion([Output(request.out, lambda path: write_prototxt(path, net))])
    return _pair(
        request, model, Output(request.out / "net.prototxt", lambda path: write_prototxt(path, net))
    )


def _pair(request: Request, model: Caffemodel, net: Output) -> Conversion:
    name = request.source.name.partition(".")[0] + ".caffemodel"
    return Conversion([net, Output(request.out / name, lambda path: write_caffemodel(path, model))])
