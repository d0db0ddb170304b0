"""What is said of a server that offers something else than was written down."""

from dataclasses import replace
from typing import Any, Final, Literal

import pytest

from agentguard.analysis.checking.offers import changes
from agentguard.policy.conversion.values import Field, record_of, shape_of
from agentguard.policy.files.written import Offered, WrittenSchema
from agentguard.policy.schemas.schema import GuardedTool, OwnType
from agentguard.request import ResourceTemplate

READ: Final = Offered(
    tool=GuardedTool(
        name="read",
        server="records",
        input=record_of({"record_id": Field(str), "kind": Field(Literal["a", "b"])}, where="read"),
        groups=frozenset({"tools/call", "read-only"}),
    )
)
NOTES: Final = Offered(
    tool=replace(READ.tool, name="resources/read/notes", kind=OwnType.RESOURCE, groups=frozenset({"resources/read"}))
)
BEFORE: Final = WrittenSchema(
    server="records", offers=(READ, NOTES), loaders=frozenset({"Record"}), claims={"tenant": str}
)


def read(**details: Any) -> WrittenSchema:
    """Return the same server, with something else of its tool."""
    template = details.pop("resource", None)
    annotated = details.pop("annotated", True)
    tool = replace(READ.tool, **details)
    return replace(BEFORE, offers=(Offered(tool=tool, resource=template, annotated=annotated), NOTES))


def arguments(**fields: Field) -> Any:
    """Return the record of these arguments."""
    return record_of(fields, where="read")


@pytest.mark.parametrize(
    ("now", "said"),
    [
        (BEFORE, []),
        (
            replace(BEFORE, server="re\x1bcords"),
            ["the server is called `re\N{REPLACEMENT CHARACTER}cords`, and was `records`"],
        ),
        (replace(BEFORE, offers=(NOTES, READ)), ["the tools come in another order"]),
        (replace(BEFORE, offers=(READ,)), ["removed resource `notes`"]),
        (replace(BEFORE, loaders=frozenset({"Doc"})), ["added loader of `Doc`", "removed loader of `Record`"]),
        (replace(BEFORE, claims={"level": int}), ["added claim `level`", "removed claim `tenant`"]),
        (replace(BEFORE, claims={"tenant": frozenset}), ["changed claim `tenant`: it is frozenset, and was str"]),
        (read(input=arguments(record_id=Field(str))), ["changed tool `read`: argument `kind` is gone"]),
        (
            read(input=arguments(record_id=Field(str, required=False), kind=Field(Literal["a"]), page=Field(int))),
            ["changed tool `read`: argument `page` is new, argument `record_id`, argument `kind`"],
        ),
        (read(facts=shape_of(int, where="facts")), ["changed tool `read`: facts"]),
        (read(unseen=("path",)), ["changed tool `read`: what policies do not see of it"]),
        (
            read(resource=ResourceTemplate("Record", "record_id"), resource_type="Record"),
            ["changed tool `read`: it acts on Record::{record_id}, and did on itself"],
        ),
        (read(resource_type="Record"), ["changed tool `read`: it acts on Record, and did on itself"]),
        (
            read(groups=frozenset({"tools/call", "destructive", "open-world"}), annotated=False),
            ["changed tool `read`: it is not annotated: destructive, open-world, and was read-only"],
        ),
        (read(groups=frozenset({"tools/call"})), ["changed tool `read`: it is an additive change, and was read-only"]),
    ],
)
def test_each_change_is_told_in_one_line(now: WrittenSchema, said: list[str]) -> None:
    """What came, what went, and what of it is another."""
    assert changes(BEFORE, now) == said
