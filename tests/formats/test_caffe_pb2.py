import ast
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from google.protobuf.descriptor_pb2 import (
    DescriptorProto,
    EnumDescriptorProto,
    FieldDescriptorProto,
    FileDescriptorProto,
    FileDescriptorSet,
)

from pycaffe_prune.formats import caffe_pb2

FORMATS = Path(caffe_pb2.__file__).parent


def our_file() -> FileDescriptorProto:
    (file,) = FileDescriptorSet.FromString((FORMATS / "caffe.fds").read_bytes()).file
    return file


def default_of(field: FieldDescriptorProto) -> str | float | None:
    if not field.HasField("default_value"):
        return None
    if field.type in (FieldDescriptorProto.TYPE_FLOAT, FieldDescriptorProto.TYPE_DOUBLE):
        return float(field.default_value)
    return field.default_value


def enum_facts(enum: EnumDescriptorProto, inside: str) -> Iterator[tuple[str, object]]:
    yield f"{inside}.{enum.name}", "enum"
    for value in enum.value:
        yield f"{inside}.{enum.name}.{value.name}", value.number


def message_facts(message: DescriptorProto, inside: str) -> Iterator[tuple[str, object]]:
    name = f"{inside}.{message.name}"
    yield name, "message"
    for field in message.field:
        yield (
            f"{name}.{field.name}",
            (
                field.number,
                FieldDescriptorProto.Type.Name(field.type),
                field.type_name,
                FieldDescriptorProto.Label.Name(field.label),
                default_of(field),
                field.options.packed,
            ),
        )
    for enum in message.enum_type:
        yield from enum_facts(enum, name)
    for nested in message.nested_type:
        yield from message_facts(nested, name)


def facts(file: FileDescriptorProto) -> dict[str, object]:
    found: dict[str, object] = {}
    for enum in file.enum_type:
        found.update(enum_facts(enum, file.package))
    for message in file.message_type:
        found.update(message_facts(message, file.package))
    return found


@pytest.mark.real_caffe
def test_every_field_and_enum_value_is_the_real_caffes(
    run_caffe: Callable[..., None], tmp_path: Path
) -> None:
    run_caffe("schema", tmp_path / "schema", cwd=tmp_path)
    theirs = facts(FileDescriptorProto.FromString((tmp_path / "schema").read_bytes()))
    ours = facts(our_file())
    assert len(theirs) > 500
    assert {name: fact for name, fact in ours.items() if theirs.get(name) != fact} == {}
    assert {name: fact for name, fact in theirs.items() if ours.get(name) != fact} == {}


def test_the_descriptor_set_is_what_the_proto_file_compiles_to(tmp_path: Path) -> None:
    out = tmp_path / "caffe.fds"
    subprocess.run(
        [
            sys.executable,
            *("-W", "ignore", "-m", "grpc_tools.protoc", f"-I{FORMATS}"),
            f"--descriptor_set_out={out}",
            str(FORMATS / "caffe.proto"),
        ],
        check=True,
    )
    compiled = FileDescriptorSet.FromString(out.read_bytes())
    assert list(compiled.file) == [our_file()]


def stub_classes(body: list[ast.stmt], inside: str) -> Iterator[tuple[str, set[str]]]:
    """Each message of a .pyi and its fields, which are its ``__slots__``."""
    for statement in body:
        if not isinstance(statement, ast.ClassDef):
            continue
        name = f"{inside}{statement.name}"
        if [ast.unparse(base) for base in statement.bases] == ["_message.Message"]:
            slots = statement.body[0]
            assert isinstance(slots, ast.Assign)
            yield name, set(ast.literal_eval(slots.value))
        yield from stub_classes(statement.body, f"{name}.")


def messages(found: list[DescriptorProto], inside: str) -> Iterator[tuple[str, set[str]]]:
    for message in found:
        yield f"{inside}{message.name}", {field.name for field in message.field}
        yield from messages(list(message.nested_type), f"{inside}{message.name}.")


def test_the_stub_file_names_every_message_and_field() -> None:
    stub = ast.parse((FORMATS / "caffe_pb2.pyi").read_text(encoding="utf-8"))
    assert dict(stub_classes(stub.body, "")) == dict(messages(list(our_file().message_type), ""))


def test_every_message_and_enum_is_an_attribute_of_the_module() -> None:
    for message in our_file().message_type:
        made = getattr(caffe_pb2, message.name)()
        assert made.DESCRIPTOR.full_name == f"caffe.{message.name}"
    assert caffe_pb2.Phase.Value("TEST") == caffe_pb2.TEST == 1


ANOTHER = """
from google.protobuf import descriptor_pb2, descriptor_pool
another = descriptor_pb2.FileDescriptorProto(name="caffe.proto", package="caffe", syntax="proto2")
another.message_type.add(name="NetParameter").field.add(
    name="other", number=1, type="TYPE_INT32", label="LABEL_OPTIONAL"
)
pool = descriptor_pool.Default()
pool.AddSerializedFile(another.SerializeToString())
assert list(pool.FindMessageTypeByName("caffe.NetParameter").fields_by_name) == ["other"]
"""

OURS = """
from pycaffe_prune.formats.caffe_pb2 import NetParameter
assert NetParameter.FromString(NetParameter(name="n").SerializeToString()).name == "n"
"""


@pytest.mark.parametrize("script", [ANOTHER + OURS, OURS + ANOTHER + OURS])
def test_another_caffe_proto_in_the_same_process_does_not_collide(script: str) -> None:
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, check=False)
    assert done.returncode == 0, done.stderr.decode()
