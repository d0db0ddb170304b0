"""What the servers of every feature hand out: the suite asks for it by name, and looks at what it gets."""

from __future__ import annotations

import base64
import json
from typing import Any, Final, cast

from mcp_types import (
    AudioContent,
    ElicitResult,
    EmbeddedResource,
    ImageContent,
    SamplingMessage,
    TextContent,
    TextResourceContents,
)

# The smallest of their kind: one red pixel, and no sound at all.
PNG: Final = "iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAIAAACQd1PeAAAADElEQVR4nGP4z8AAAAMBAQDJ/pLvAAAAAElFTkSuQmCC"
WAV: Final = "UklGRiQAAABXQVZFZm10IBAAAAABAAEAQB8AAEAfAAABAAgAZGF0YQAAAAA="

SCHEMA_2020_12: Final[dict[str, Any]] = {
    "$schema": "https://json-schema.org/draft/2020-12/schema",
    "type": "object",
    "$defs": {
        "address": {
            "$anchor": "addressDef",
            "type": "object",
            "properties": {"street": {"type": "string"}, "city": {"type": "string"}},
        }
    },
    "properties": {
        "name": {"type": "string"},
        "address": {"$ref": "#/$defs/address"},
        "contactMethod": {"type": "string", "enum": ["phone", "email"]},
        "phone": {"type": "string"},
        "email": {"type": "string"},
    },
    "allOf": [{"anyOf": [{"required": ["phone"]}, {"required": ["email"]}]}],
    "if": {"properties": {"contactMethod": {"const": "phone"}}, "required": ["contactMethod"]},
    "then": {"required": ["phone"]},
    "else": {"required": ["email"]},
    "additionalProperties": False,
}
"""The schema that must come through a listing word by word."""

DEFAULTS: Final[dict[str, Any]] = {
    "type": "object",
    "properties": {
        "name": {"type": "string", "default": "John Doe"},
        "age": {"type": "integer", "default": 30},
        "score": {"type": "number", "default": 95.5},
        "status": {"type": "string", "enum": ["active", "inactive", "pending"], "default": "active"},
        "verified": {"type": "boolean", "default": True},
    },
}
"""A form with a default for every primitive type."""

_TITLED: Final = [{"const": f"value{n}", "title": f"Choice {n}"} for n in (1, 2, 3)]
_OPTIONS: Final = ["option1", "option2", "option3"]
ENUMS: Final[dict[str, Any]] = {
    "type": "object",
    "properties": {
        "untitledSingle": {"type": "string", "enum": _OPTIONS},
        "titledSingle": {"type": "string", "oneOf": _TITLED},
        "legacyEnum": {"type": "string", "enum": _OPTIONS, "enumNames": ["One", "Two", "Three"]},
        "untitledMulti": {"type": "array", "items": {"type": "string", "enum": _OPTIONS}},
        "titledMulti": {"type": "array", "items": {"anyOf": _TITLED}},
    },
}
"""A form with every way to write a choice."""


def form(**types: str) -> dict[str, Any]:
    """Return a form whose fields are all required."""
    fields = {name: {"type": type_} for name, type_ in types.items()}
    return {"type": "object", "properties": fields, "required": list(types)}


def text(words: str) -> TextContent:
    """Return words as content."""
    return TextContent(type="text", text=words)


def image() -> ImageContent:
    """Return the picture as content."""
    return ImageContent(type="image", data=PNG, mime_type="image/png")


def audio() -> AudioContent:
    """Return the sound as content."""
    return AudioContent(type="audio", data=WAV, mime_type="audio/wav")


def embedded(uri: str, words: str, mime_type: str = "text/plain") -> EmbeddedResource:
    """Return a resource inside other content."""
    return EmbeddedResource(type="resource", resource=TextResourceContents(uri=uri, mime_type=mime_type, text=words))


def picture() -> bytes:
    """Return the picture's bytes."""
    return base64.b64decode(PNG)


def template_data(id: str) -> str:  # noqa: A002  the suite's own template names it so
    """Return what the template has under one id."""
    return json.dumps({"id": id, "templateTest": True, "data": f"Data for ID: {id}"})


def question(words: str) -> list[SamplingMessage]:
    """Return what a model is asked."""
    return [SamplingMessage(role="user", content=text(words))]


def answer(responses: object, key: str, field: str) -> Any:
    """Return one field of a person's answer to an earlier question; None if it is no such answer."""
    given = (cast("dict[str, object]", responses) or {}).get(key)
    if not isinstance(given, ElicitResult) or given.action != "accept":
        return None
    return (given.content or {}).get(field)
