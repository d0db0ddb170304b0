"""A value brings Cedar's own escapes along.

Seen with cedarpy 4.12.2, which is built with partial evaluation: where an attribute is
``{"__extn": {"fn": "unknown", "arg": "x"}}``, a forbid that looks at it does not fire.
"""

import json
from pathlib import Path
from typing import Any, TypedDict

import cedarpy
import pytest

from agentguard.errors import Refusal, UnmappableTypeError
from agentguard.model import Reason
from agentguard.policy.conversion.values import check_no_escapes, shape_of
from agentguard.request import principal_entities
from agentguard.testing import unsafe_invocation
from tests.policy.judging import outcome

UNKNOWN: dict[str, object] = {"__extn": {"fn": "unknown", "arg": "x"}}
ROOT: dict[str, object] = {"__entity": {"type": "User", "id": "root"}}
EXPRESSION: dict[str, object] = {"__expr": "1 + 1"}
ESCAPES = [UNKNOWN, ROOT, EXPRESSION]


def test_an_unknown_in_an_attribute_silences_a_forbid_in_cedar() -> None:
    """The trap itself, without a defence."""
    anyone = {"type": "Anyone", "id": "a"}
    policies = (
        "permit (principal, action, resource); forbid (principal, action, resource) when { principal.dept == 1 };"
    )
    request = {"principal": anyone, "action": {"type": "Action", "id": "a"}, "resource": anyone, "context": "{}"}

    def denies(dept: object) -> bool:
        entities = json.dumps([{"uid": anyone, "attrs": {"dept": dept}, "parents": []}])
        return "policy1" in cedarpy.is_authorized(request, policies, entities).diagnostics.reasons

    assert denies(1)
    assert not denies(UNKNOWN)


@pytest.mark.parametrize("escape", ESCAPES)
def test_a_reserved_key_in_a_mapping_is_refused(tmp_path: Path, escape: dict[str, object]) -> None:
    """Though it would end up as text in a pair: values from outside have no such keys."""
    ((key, _),) = escape.items()

    assert outcome(tmp_path, {key: "x"}, dict[str, str], forbid="false") is Reason.INVALID_ARGUMENT
    assert outcome(tmp_path, [{key: "x"}], list[dict[str, str]], forbid="false") is Reason.INVALID_ARGUMENT


@pytest.mark.parametrize("escape", ESCAPES)
@pytest.mark.parametrize("annotation", [str, int, bool, float, list[str], frozenset[str]])
def test_an_escape_in_place_of_a_value_is_refused(tmp_path: Path, escape: object, annotation: object) -> None:
    """Every converter wants its exact type."""
    assert outcome(tmp_path, escape, annotation, forbid="false") is Reason.INVALID_ARGUMENT
    assert outcome(tmp_path, [escape], annotation, forbid="false") is Reason.INVALID_ARGUMENT


def test_a_type_with_a_reserved_key_is_refused_at_start_up() -> None:
    """Its records would be read as escapes."""
    for name in ("__extn", "__entity", "__expr"):
        typed = TypedDict("typed", {name: str})  # type: ignore[misc]

        with pytest.raises(UnmappableTypeError, match="Cedar reserves that name"):
            shape_of(typed, where="t.a")


@pytest.mark.parametrize("escape", ESCAPES)
def test_an_escape_in_a_claim_is_refused(escape: Any) -> None:
    """Whatever an issuer signed."""
    with pytest.raises(Refusal):
        principal_entities(unsafe_invocation("agent", claims={"dept": escape}))
    with pytest.raises(Refusal):
        check_no_escapes({"dept": [{"deeper": escape}]})
