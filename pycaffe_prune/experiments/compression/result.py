"""What a compression did (``compression.json``): what was tried, what was chosen, what it holds."""

from pathlib import Path

from pydantic import BaseModel, ConfigDict, Field

from pycaffe_prune.formats.files import write_text

__all__ = ["Answers", "CompressionResult", "Trial", "write_compression"]


class _Model(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", use_attribute_docstrings=True)


class Answers(_Model):
    """A test: how many images were answered right."""

    correct: int = Field(ge=0)
    images: int = Field(gt=0)

    @property
    def percent(self) -> float:
        """Of the images, those that were answered right."""
        return 100 * self.correct / self.images

    def points_below(self, other: "Answers") -> float:
        """Return how many points of accuracy this is below another test; negative: above."""
        return other.percent - self.percent


class Trial(_Model):
    """A net that was trained to see what it loses."""

    kept: float
    """Asked: share of the weights that are not zero."""
    bits: dict[str, int] | None
    """Bits of a weight by layer, where weights were shared already."""
    held_out: Answers
    size: int = Field(gt=0)
    """Bytes of the compressed file."""


class CompressionResult(_Model):
    """A whole compression."""

    schema_version: int = 1
    engine: str
    points: float | None
    """How many points of accuracy might be lost on the held-out images; None: a size was asked."""
    times: float | None
    """How many times smaller than the dense float32 values the file had to be; None: points were
    asked."""
    dense_bytes: int = Field(gt=0)
    """All values of the model as float32."""
    whole_held_out: Answers
    trials: tuple[Trial, ...]
    chosen: Trial
    whole_test: Answers
    """On the test images, which nothing was chosen by."""
    compressed_test: Answers

    @property
    def factor(self) -> float:
        """How many times smaller the file is than the dense values."""
        return self.dense_bytes / self.chosen.size


def write_compression(path: Path, result: CompressionResult) -> None:
    """Write ``compression.json`` atomically."""
    write_text(path, result.model_dump_json(indent=1) + "\n")
