import json
import re
from pathlib import Path

from pycaffe_prune.experiments.result import ExperimentResult
from pycaffe_prune.reports.schema import schema_text

DOCS = Path(__file__).parents[2] / "docs"
AGAIN = "the models have changed: docs/result.md says how to write docs/result.schema.json again"


def _names(node: object) -> set[str]:
    """Every property name in a JSON schema."""
    if isinstance(node, list):
        return set().union(*map(_names, node))
    if not isinstance(node, dict):
        return set()
    own = set(node.get("properties", {}))
    return own.union(*map(_names, node.values()))


def test_the_committed_schema_is_that_of_the_models() -> None:
    committed = json.loads((DOCS / "result.schema.json").read_text("utf-8"))
    assert committed == json.loads(schema_text()), AGAIN


def test_the_page_names_every_field_and_no_other() -> None:
    page = (DOCS / "result.md").read_text("utf-8")
    fields = _names(json.loads(schema_text()))
    assert fields >= set(ExperimentResult.model_fields)
    named = set(re.findall(r"`([a-z_0-9]+)`", page))
    assert fields <= named
    in_tables = {line.split("`")[1] for line in page.splitlines() if line.startswith("| `")}
    assert in_tables <= fields


def test_a_written_result_has_every_field_of_the_schema(typical: ExperimentResult) -> None:
    schema = json.loads(schema_text())
    written = json.loads(typical.model_dump_json())
    assert set(schema["properties"]) == set(written)
    assert set(schema["required"]) <= set(written)
    assert set(schema["$defs"]["Point"]["properties"]) == set(written["points"][0])
    assert set(schema["$defs"]["Round"]["properties"]) == set(written["points"][0]["rounds"][0])
