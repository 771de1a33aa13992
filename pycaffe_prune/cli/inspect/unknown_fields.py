"""Warnings of fields that stock Caffe does not know, before anything is made of a net."""

from pathlib import Path

from pycaffe_prune.formats.files import holds_text
from pycaffe_prune.formats.prototxt import read_net
from pycaffe_prune.net.unknown_fields import unknown_fields
from pycaffe_prune.screen import echo

__all__ = ["warn_of_unknown_fields"]


def warn_of_unknown_fields(*paths: Path | None) -> None:
    """Say on standard error which fields of nets are carried without their meaning.

    Raises:
        FormatError: A file is text and no net prototxt.
    """
    for path in paths:
        if path is not None and path.is_file() and holds_text(path):
            for sentence in unknown_fields(read_net(path), path):
                echo(f"warning: {sentence}", err=True)
