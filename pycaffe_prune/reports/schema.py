"""The schema of an experiment's result.json, as it is written down in ``docs/``."""

import json

from pycaffe_prune.experiments.result import ExperimentResult

__all__ = ["schema_text"]


def schema_text() -> str:
    """Return the JSON schema of what is read; whoever writes gives every field."""
    schema = ExperimentResult.model_json_schema()
    return json.dumps(schema, indent=2, ensure_ascii=False) + "\n"
