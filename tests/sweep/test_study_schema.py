"""The JSON Schema of studies: takes the shipped ones, refuses what is plainly wrong, and describes each key."""

import json
from typing import Any

import jsonschema
import pytest
from typer.testing import CliRunner

from hiresnet_graph.cli.app import app
from hiresnet_graph.shipped import study_names, study_path
from hiresnet_graph.spec.reader import parse, read
from hiresnet_graph.sweep.study import Study
from hiresnet_graph.sweep.study_schema import study_schema


@pytest.fixture(scope="module")
def validator() -> Any:
    found = study_schema()
    jsonschema.Draft202012Validator.check_schema(found)
    return jsonschema.Draft202012Validator(found)


@pytest.mark.parametrize("name", study_names())
def test_shipped_studies_are_valid(validator: Any, name: str) -> None:
    path = study_path(name)
    assert path is not None
    validator.validate(json.loads(json.dumps(read(path))))


@pytest.mark.parametrize(
    "text",
    [
        "network: n\nvaraints: [none]",
        "variants: [none]",
        "network: n\nrecipe: {epoch: 1}",
        "network: n\npublished: {source: s, values: [{label: a}]}",
        "network: n\npublished: {source: s, values: [{label: a, mean: 300}]}",
        "network: n\nsearch: {space: {edges: full}, sampler: tpee}",
        "network: n\ndata: [digits]",
    ],
)
def test_wrong_studies_are_refused(validator: Any, text: str) -> None:
    assert not validator.is_valid(json.loads(json.dumps(parse(text, "s.yaml"))))


def test_every_key_is_described() -> None:
    properties = json.loads(CliRunner().invoke(app, ["schema", "--study"]).stdout)["properties"]
    assert properties.keys() == Study.model_fields.keys()
    assert properties["published"]["description"].startswith("Published results of the same networks")
    assert all(field["description"] for field in properties.values())
