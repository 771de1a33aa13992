"""What makes one run another than the one in a folder: settings with both values, and files."""

from collections.abc import Iterator
from typing import Any

import numpy as np
from google.protobuf.descriptor import FieldDescriptor
from google.protobuf.message import Message
from pydantic import ValidationError

from pycaffe_prune.engines.fingerprint import deciding_settings
from pycaffe_prune.engines.job import Job
from pycaffe_prune.engines.net_files import FILE_FIELDS
from pycaffe_prune.engines.run_folder import RunFolder
from pycaffe_prune.errors import FormatError
from pycaffe_prune.formats.caffe_pb2 import LayerParameter, NetParameter, Phase, SolverParameter
from pycaffe_prune.formats.prototxt import read_net, read_solver

__all__ = ["net_differences", "run_differences", "settings_differences"]

_MOST = 6
_Values = dict[str, str]
_LISTS = ("image_data_param", "window_data_param")


def settings_differences(old: SolverParameter, new: SolverParameter) -> Iterator[str]:
    """Yield each setting of two solvers that decides the weights and differs, with both values."""
    yield from _changes(_values(deciding_settings(old)), _values(deciding_settings(new)))


def net_differences(old: NetParameter, new: NetParameter) -> Iterator[str]:
    """Yield what two nets say otherwise of their layers, with both values; not which files."""
    layers, others = _layers(old), _layers(new)
    yield from (f"{name} is gone" for name in layers if name not in others)
    for name, layer in others.items():
        if name not in layers:
            yield f"{name} is new"
        else:
            changes = list(_changes(_layer_values(layers[name]), _layer_values(layer)))
            if changes:
                yield f"{name}: {', '.join(changes)}"
    if list(layers) != list(others) and layers.keys() == others.keys():
        yield "the order of the layers"
    yield from _changes(_net_values(old), _net_values(new))


def run_differences(
    folder: RunFolder, job: Job, net: NetParameter, solver: SolverParameter
) -> list[str]:
    """Return what makes a run another one than that in ``folder``; nothing: it goes on there.

    Args:
        folder: Holds a run, with its job, net and solver.
        job: The other run.
        net: Its net, as it would be written there.
        solver: Its solver, likewise.

    Raises:
        FormatError: What is in the folder is damaged.
    """
    try:
        old = Job.model_validate_json(folder.job.read_bytes())
    except ValidationError as error:
        raise FormatError(f"{folder.job}: is damaged; remove the folder {folder.path}") from error
    differing = old.differences(job)
    told = []
    if "solver" in differing:
        told += list(settings_differences(read_solver(folder.solver), solver))
    if "net" in differing:
        told += list(net_differences(read_net(folder.net), net)) + list(_of_files(old, job))
    told += [_of_field(name, old, job) for name in differing if name not in ("solver", "net")]
    return [*told[:_MOST], *([f"and {len(told) - _MOST} more"] if len(told) > _MOST else [])] or [
        f"another {name}" for name in differing
    ]


def _of_files(old: Job, new: Job) -> Iterator[str]:
    """Yield which of the files that both nets read hold something else now."""
    if new.files and not old.files:
        yield (
            "it is of an older version, which knew data by their names and numbers of records and "
            "not by what is in them"
        )
    before = {(file.reader, file.field): file.sha256 for file in old.files}
    for file in new.files:
        if before.get((file.reader, file.field), file.sha256) != file.sha256:
            yield f"other content in {file.told}"


def _of_field(name: str, old: Job, new: Job) -> str:
    if name == "trusted":
        return f"begun {'with' if old.trusted else 'without'} --trust"
    if name == "masking":
        told = [job.masking.model_dump_json() if job.masking else "none" for job in (old, new)]
        return f"masks change by {told[0]} -> {told[1]}"
    if name == "taught_by":
        return f"taught by {old.taught_by or 'no teacher'} -> {new.taught_by or 'no teacher'}"
    if name == "tying":
        return f"weights tied in {_tied(old)} -> {_tied(new)}"
    before, after = getattr(old, name, None), getattr(new, name, None)
    if isinstance(before, int) and isinstance(after, int):
        return f"{name} {before} -> {after}"
    if name == "accuracy":
        return f"accuracy judged in '{before}' -> in '{after}' (--accuracy)"
    return f"other {name}"


def _tied(job: Job) -> str:
    return job.tying.told if job.tying else "no layer"


def _layers(net: NetParameter) -> dict[str, LayerParameter]:
    """By a name that tells of two layers of one name which is which."""
    found: dict[str, LayerParameter] = {}
    for layer in net.layer:
        phases = [Phase.Name(rule.phase) for rule in layer.include if rule.HasField("phase")]
        name = f"layer '{layer.name}'" + (f" ({phases[0]})" if phases else "")
        count = sum(known.partition(" no. ")[0] == name for known in found)
        found[f"{name} no. {count + 1}" if count else name] = layer
    return found


def _layer_values(layer: LayerParameter) -> _Values:
    plain = LayerParameter()
    plain.CopyFrom(layer)
    for message, field in FILE_FIELDS:
        if plain.HasField(message):
            getattr(plain, message).ClearField(field)
    for message in _LISTS:
        if plain.HasField(message):
            getattr(plain, message).ClearField("root_folder")
    return _values(plain)


def _net_values(net: NetParameter) -> _Values:
    plain = NetParameter()
    plain.CopyFrom(net)
    plain.ClearField("layer")
    return _values(plain)


def _values(message: Message, name: str = "") -> _Values:
    """Every field that is set, as text, under its name; of a layer's own message without that's."""
    found: _Values = {}
    for field, value in message.ListFields():
        path = f"{name}.{field.name}" if name else field.name
        path = path if name or not field.name.endswith("_param") else ""
        if field.message_type is None:
            found[path] = _told(field, value)
        elif _is_repeated(field, value):
            for number, part in enumerate(value):
                found |= _values(part, f"{path}[{number}]")
        else:
            found |= _values(value, path)
    return found


def _is_repeated(field: FieldDescriptor, value: Any) -> bool:
    return field.message_type is not None and not isinstance(value, Message)


def _told(field: FieldDescriptor, value: Any) -> str:
    if isinstance(value, (str, bytes, int, float)):
        return _scalar(field, value)
    return f"[{', '.join(_scalar(field, part) for part in value)}]"


def _scalar(field: FieldDescriptor, value: Any) -> str:
    if field.enum_type is not None:
        return str(field.enum_type.values_by_number[value].name)
    if field.type == FieldDescriptor.TYPE_FLOAT:
        return str(np.float32(value))
    return str(value).lower() if isinstance(value, bool) else str(value)


def _changes(old: _Values, new: _Values) -> Iterator[str]:
    for name in dict.fromkeys([*old, *new]):
        before, after = old.get(name, "not set"), new.get(name, "not set")
        if before != after:
            yield f"{name} {before} -> {after}"
