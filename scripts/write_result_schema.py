"""Write the JSON schema of ``result.json``: ``python scripts/write_result_schema.py``."""

from __future__ import annotations

import json
from pathlib import Path

from pydantic import TypeAdapter

from clew.runs import Artifact, Energy, Failure, JobResult, Remote

PATH = Path(__file__).parents[1] / "src/clew/runs/result.schema.json"


def schema() -> str:
    """Return the schema as text."""
    for cls in (Artifact, Energy, Failure, Remote, JobResult):
        cls.__pydantic_config__ = {"use_attribute_docstrings": True}  # type: ignore[attr-defined]
    made = TypeAdapter(JobResult).json_schema()
    # Numbers that JSON does not have are spelt out; see clew.runs.journal.
    made["properties"]["metrics"]["additionalProperties"] = {
        "anyOf": [{"type": "number"}, {"enum": ["nan", "inf", "-inf"]}]
    }
    made["$schema"] = "https://json-schema.org/draft/2020-12/schema"
    return json.dumps(made, indent=2, sort_keys=True) + "\n"


if __name__ == "__main__":
    PATH.write_text(schema(), encoding="utf-8")
    print(f"wrote {PATH}")
