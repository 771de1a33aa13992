"""The manifest of a built data set: what is there, how much, and its checksums."""

import json
import re
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, ClassVar, Literal

from data_prep.lmdb_writer import lmdb_content_checksum, lmdb_count
from data_prep.mean import TRAINING_IMAGES
from pycaffe_prune.errors import DataError
from pycaffe_prune.formats.files import sha256_of, write_text
from pycaffe_prune.path_names import why_no_component
from pycaffe_prune.shown import shown

__all__ = [
    "MANIFEST_NAME",
    "DataSetName",
    "Manifest",
    "Split",
    "SplitName",
    "load_manifest",
    "verify_manifest",
    "write_manifest",
]

MANIFEST_NAME = "manifest.json"

DataSetName = Literal["digits", "features", "flowers102", "mnist", "subset"]
SplitName = Literal["train", "test"]
_BUILDERS = ("mnist", "flowers102", "digits")  # commands of `caffe-prune data`
_STRICT = {"extra": "forbid"}  # for pydantic, which reads manifests: an unknown field is an error


def _require_component(name: str, where: str) -> None:
    """Names that lie in the data set's folder, and lead nowhere else."""
    if why := why_no_component(name):
        raise ValueError(f"{where}: '{shown(name)}' {why}")


def _require_sha256(value: str, name: str) -> None:
    if not re.fullmatch("[0-9a-f]{64}", value):
        raise ValueError(f"{name} is no SHA-256")


@dataclass(frozen=True, kw_only=True)
class Split:
    """One LMDB of a data set.

    Attributes:
        lmdb: Its folder's name.
        count: Its images.
        label_histogram: How many images have label 0, 1, … up to the largest label.
        shape: Channels, height and width of every image.
        sha256: Over its content, see `data_prep.lmdb_writer.lmdb_content_checksum`.
        left_out: Names of images that belong in it, but were missing or damaged.
    """

    __pydantic_config__: ClassVar[Any] = _STRICT

    lmdb: str
    count: int
    label_histogram: list[int]
    shape: tuple[int, int, int]
    sha256: str
    left_out: list[str] = field(default_factory=list)

    def __post_init__(self) -> None:
        if self.count < 1 or min(self.shape) < 1 or min(self.label_histogram, default=0) < 0:
            raise ValueError("count, shape or label_histogram is out of range")
        _require_component(self.lmdb, "lmdb")
        _require_sha256(self.sha256, "sha256")


@dataclass(frozen=True, kw_only=True)
class Manifest:
    """What a finished data set consists of.

    Attributes:
        schema_version: Of this file.
        name: Which data set.
        source: Where it came from, in words.
        is_sample: Whether it is a small stand-in, whose results are not the real data set's.
        splits: The LMDBs, "train" and "test".
        encoded: Whether the LMDBs hold image files (JPEG), not pixels.
        mean: Name of the mean image's file.
        mean_of: The images whose mean it is, in words.
        mean_sha256: Checksum of that file.
        warnings: What was unusual about the source.
        created_by: The program and version that built it.
    """

    __pydantic_config__: ClassVar[Any] = _STRICT

    schema_version: Literal[1] = 1
    name: DataSetName
    source: str
    is_sample: bool
    splits: dict[SplitName, Split]
    encoded: bool = False
    mean: str
    mean_of: str = TRAINING_IMAGES
    mean_sha256: str
    warnings: list[str] = field(default_factory=list)
    created_by: str

    def __post_init__(self) -> None:
        if len(self.splits) < 2:
            raise ValueError("splits are not both there")
        _require_component(self.mean, "mean")
        _require_sha256(self.mean_sha256, "mean_sha256")


def write_manifest(folder: Path, manifest: Manifest) -> None:
    """Write ``manifest.json`` into the data set's folder, atomically; do this last.

    Raises:
        PruneError: The file cannot be written.
    """
    text = json.dumps(asdict(manifest), indent=2, ensure_ascii=False)
    write_text(folder / MANIFEST_NAME, text + "\n")


def load_manifest(folder: Path) -> Manifest:
    """Read the manifest of the data set in ``folder``.

    Raises:
        DataError: There is no finished data set, or its manifest is damaged.
    """
    path = folder / MANIFEST_NAME
    try:
        return _validated(path.read_bytes(), path)
    except (FileNotFoundError, NotADirectoryError) as error:
        raise DataError(
            f"{folder}: no finished data set here ({MANIFEST_NAME} is missing); "
            f"build one with `caffe-prune data NAME --out {folder}`, NAME one of "
            f"{', '.join(_BUILDERS)}"
        ) from error
    except OSError as error:
        raise DataError(f"{path}: cannot be read ({error.strerror})") from error


def _validated(content: bytes, path: Path) -> Manifest:
    # Here, not above: a tenth of a second that building a data set does without.
    from pydantic import TypeAdapter, ValidationError

    try:
        return TypeAdapter(Manifest).validate_json(content)
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(str(part) for part in first["loc"]) or "JSON"
        raise DataError(
            f"{path}: damaged ({where}: {first['msg']}); remove {path.parent} and build it again"
        ) from error


def verify_manifest(folder: Path) -> Manifest:
    """Count and checksum everything in the data set's ``folder`` again.

    Returns:
        The manifest, which holds.

    Raises:
        DataError: The manifest is missing or damaged, or something differs from what it says.
    """
    manifest = load_manifest(folder)
    builder = manifest.name if manifest.name == "features" else f"data {manifest.name}"
    again = f"build it again with `caffe-prune {builder} --out {folder} --force`"
    for split in manifest.splits.values():
        path = folder / split.lmdb
        count = lmdb_count(path)
        if count != split.count:
            raise DataError(f"{path}: has {count} images, its manifest says {split.count}; {again}")
        if lmdb_content_checksum(path) != split.sha256:
            raise DataError(f"{path}: its content is not what its manifest says; {again}")
    mean = folder / manifest.mean
    if not mean.is_file():
        raise DataError(f"{mean}: is missing; {again}")
    if sha256_of(mean) != manifest.mean_sha256:
        raise DataError(f"{mean}: is not what its manifest says; {again}")
    return manifest
