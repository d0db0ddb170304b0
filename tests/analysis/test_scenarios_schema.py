"""The JSON Schema that editors check files of scenarios by: it takes what the reader takes."""

from __future__ import annotations

import json
from importlib import resources
from pathlib import Path
from typing import Any, Final

import pytest
import yaml
from jsonschema import Draft202012Validator  # type: ignore[import-untyped]

from agentguard.analysis.scenarios.casecall import APPROVED, TRANSPORTS
from agentguard.analysis.scenarios.done import DONE
from agentguard.analysis.scenarios.parties import IDENTITY
from agentguard.analysis.scenarios.scenariofile import CASE, EXPLAINED, FILE, SCENARIO
from agentguard.analysis.scenarios.yamltext import plain, read_yaml
from agentguard.model import Effect, Grade, Reason
from tests.analysis.scenarios.test_suites import HEAD, MISTAKES, OPEN

ROOT: Final = Path(__file__).parent.parent.parent
SCHEMA: Final[dict[str, Any]] = json.loads(
    (resources.files("agentguard.analysis.scenarios") / "scenarios.schema.json").read_text("utf-8")
)
VALIDATOR: Final = Draft202012Validator(SCHEMA)
OURS: Final = sorted((ROOT / "examples").rglob("*.test.yaml"))
# What a schema can tell: keys, kinds of nodes and words. What is missing may stand elsewhere.
SHAPES: Final = (
    "has no key",
    "wants a mapping",
    "wants a list",
    "wants 1 to 256",
    "has no value",
    "without blanks",
    "wants 1 to 32",
)


class Untimed(yaml.SafeLoader):
    """Read scalars as editors do, by YAML 1.2: with numbers and truth values, and without dates."""


Untimed.yaml_implicit_resolvers = {
    sign: [(tag, pattern) for tag, pattern in resolvers if not tag.endswith("timestamp")]
    for sign, resolvers in yaml.SafeLoader.yaml_implicit_resolvers.items()
}


def test_schema_is_one() -> None:
    """By its own draft."""
    Draft202012Validator.check_schema(SCHEMA)


@pytest.mark.parametrize("path", OURS, ids=lambda path: path.name)
def test_schema_takes_every_file_of_ours(path: Path) -> None:
    """As text alone, and as an editor reads it."""
    text = path.read_text("utf-8")

    assert list(VALIDATOR.iter_errors(plain(read_yaml(text)))) == []
    assert list(VALIDATOR.iter_errors(yaml.load(text, Untimed))) == []  # noqa: S506  a safe loader with fewer types


def test_there_are_files_of_ours() -> None:
    """So that the test above looks at something."""
    assert len(OURS) >= 3


@pytest.mark.parametrize(
    ("scenarios", "at", "what"), [one for one in MISTAKES if any(word in one[2] for word in SHAPES)]
)
def test_schema_refuses_what_has_not_the_shape(scenarios: str, at: str, what: str) -> None:
    """Whoever writes with an editor is told before anything is run."""
    text = HEAD + scenarios.replace("OPEN", OPEN)

    assert not VALIDATOR.is_valid(plain(read_yaml(text)))


def test_schema_knows_the_keys_of_the_reader() -> None:
    """Each of them, and no other."""
    definitions = SCHEMA["$defs"]

    def keys(schema: dict[str, Any]) -> set[str]:
        assert schema["additionalProperties"] is False
        return set(schema["properties"])

    assert keys(SCHEMA) == set(FILE)
    assert keys(definitions["scenario"]) == set(SCENARIO)
    assert keys(definitions["case"]) == set(CASE)
    assert keys(definitions["identity"]) == set(IDENTITY)
    assert keys(definitions["run"]) == set(DONE)
    assert keys(definitions["approval"]) == set(APPROVED)
    assert keys(definitions["survivor"]) == set(EXPLAINED)
    case = definitions["case"]["properties"]
    assert case["transport"]["enum"] == list(TRANSPORTS)
    assert case["expect"]["enum"] == [effect.value for effect in Effect]
    assert definitions["identity"]["properties"]["grade"]["enum"] == [grade.value for grade in Grade]
    assert set(case["reason"]["enum"]) <= {reason.value for reason in Reason}


def test_every_key_is_explained() -> None:
    """An editor shows it to whoever writes."""
    for name in ("case", "scenario", "identity", "run", "approval", "survivor"):
        for key, schema in SCHEMA["$defs"][name]["properties"].items():
            assert schema.get("description") or "$ref" in schema, (name, key)
