"""The JSON Schema of study files, made from their models; `validate` checks more, since it knows the network."""

from __future__ import annotations

from typing import Any

from pydantic.json_schema import GenerateJsonSchema, JsonSchemaValue
from pydantic_core import PydanticOmit, core_schema

from hiresnet_graph.data import DatasetKind
from hiresnet_graph.spec.schema import documented
from hiresnet_graph.sweep.study import Study


def study_schema() -> dict[str, Any]:
    """The JSON Schema (2020-12) of a study file."""
    found = Study.model_json_schema(schema_generator=_Generator)
    return {"$schema": GenerateJsonSchema.schema_dialect, **found, "title": "A study of hiresnet_graph"}


class _Generator(GenerateJsonSchema):
    """Describes each key by the docstring of its model, and leaves out what only Python can give."""

    def is_instance_schema(self, schema: core_schema.IsInstanceSchema) -> JsonSchemaValue:
        """Nothing: a file cannot hold an object."""
        raise PydanticOmit

    def model_schema(self, schema: core_schema.ModelSchema) -> JsonSchemaValue:
        """The schema of a model with descriptions."""
        if issubclass(schema["cls"], DatasetKind):  # a file names it, with the fields of its own kind
            return {"type": "object"}
        found = super().model_schema(schema)
        texts = documented(schema["cls"])
        found["description"] = (schema["cls"].__doc__ or "").split("\n\n")[0]
        for name, field in found.get("properties", {}).items():
            field.pop("title", None)
            field |= {"description": texts[name]} if name in texts else {}
        return found
