"""A server whose tools read mail and pay, written down, with policies about what a run has done."""

from collections.abc import Mapping
from decimal import Decimal
from pathlib import Path
from typing import Annotated, Any, Final

from agentguard.analysis.supposedcall import Identity, SupposedCall
from agentguard.analysis.workspace import Workspace, open_workspace
from agentguard.limits import Limits
from agentguard.policy.conversion.values import Field, Spend, record_of
from agentguard.policy.files.source import read_folder
from agentguard.policy.files.written import FILE, Offered, WrittenSchema, write_schema
from agentguard.policy.schemas.schema import METHODS, GuardedTool, credential_tool, method_tool
from agentguard.request import ResourceTemplate
from tests.analysis.clinic import NOW
from tests.world import write_policies

AMOUNT: Final = Annotated[Decimal, Spend("payments")]
POLICIES: Final = """
@id("works")
permit (principal, action, resource);

@id("cap")
@advice("At most 10 calls a run.")
forbid (principal, action in Action::"tools/call", resource)
when { context.run.calls >= 10 };

@id("budget")
@advice("At most 500.00 a run.")
forbid (principal, action == Action::"pay", resource)
when { context.run.spent.payments.greaterThan(decimal("500.0")) };

@id("untrusted")
forbid (principal, action == Action::"pay", resource)
when { context.run.labels.contains("untrusted") };

@id("one-holder")
forbid (principal, action == Action::"pay", resource)
when { context.run.shared };
"""


def tool(name: str, fields: Mapping[str, object], **details: Any) -> Offered:
    """Return a tool that is offered, with arguments of these types."""
    shape = record_of({key: Field(kind) for key, kind in fields.items()}, where=name)
    groups = frozenset({"tools/call", "open-world"})
    return Offered(tool=GuardedTool(name=name, server="inbox", input=shape, groups=groups, **details))


WRITTEN: Final = WrittenSchema(
    server="inbox",
    offers=(
        tool("pay", {"account": str, "amount": AMOUNT, "fee": AMOUNT | None}, totals=("payments",)),
        tool("read_mail", {"count": int}, labels=frozenset({"untrusted"})),
        tool("print", {"pages": Annotated[int, Spend("paper")]}, totals=("paper",)),
        *(Offered(tool=method_tool(method, "inbox")) for method in METHODS),
        Offered(tool=credential_tool("inbox", ["bank", "crm"]), resource=ResourceTemplate("Credential", "credential")),
    ),
)


def spending(folder: Path, policies: str = POLICIES) -> Workspace:
    """Return the workspace of a folder with its schema in it."""
    write_policies(folder, policies, types=None)
    text = write_schema(WRITTEN, read_folder(folder, Limits()))
    (folder / FILE).write_text(text, "utf-8")
    return open_workspace(folder)


def decimal(text: str) -> dict[str, Any]:
    """Return a decimal as Cedar JSON."""
    return {"__extn": {"fn": "decimal", "arg": text}}


def payment(amount: str, **identity: Any) -> SupposedCall:
    """Return a call that pays."""
    given: dict[str, Any] = {"account": "a1", "amount": decimal(amount)}
    return SupposedCall(identity=Identity(agent="clerk", **identity), action="pay", input=given, now=NOW)
