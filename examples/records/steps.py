"""The demo's calls, and the answer that each should get."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Final


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Step:
    """One call and the answer that it should get.

    Attributes:
        shown: The call, as the demo prints it.
        tool: The tool to call.
        arguments: What to call it with, as JSON.
        by: The policies that should decide.
        told: What the agent should read of a denial; None for a call to be allowed.
        gets: Parts of the result that an allowed call should have.
        remark: What to look at in this line.
    """

    shown: str
    tool: str
    arguments: Mapping[str, object]
    by: tuple[str, ...] = ()
    told: str | None = None
    reason: str = "policy"
    gets: Mapping[str, object] = field(default_factory=dict)
    remark: str = ""

    @property
    def verdict(self) -> tuple[str, str, list[str]]:
        """The effect, the reason and the organisation's policies that the decision should have."""
        return ("allow", "permit", list(self.by)) if self.told is None else ("deny", self.reason, list(self.by))


SUPPORT: Final = (
    Step(
        shown="read_record(r9)  restricted",
        tool="read_record",
        arguments={"record_id": "r9"},
        by=("support-works-on-records",),
    ),
    Step(
        shown="delete_record(r1)",
        tool="delete_record",
        arguments={"record_id": "r1"},
        by=("destructive-needs-approval",),
        told="A person has to approve this call.",
        reason="approval_unavailable",
    ),
)

EXPORT_500: Final = Step(
    shown="export_records(max_rows=500)",
    tool="export_records",
    arguments={"max_rows": 500},
    by=("billing-exports",),
    gets={"max_rows": 500, "rows": 3},
)
EXPORT_5_00: Final = Step(
    shown='export_records(max_rows="5_00")',
    tool="export_records",
    arguments={"max_rows": "5_00"},
    by=("billing-exports",),
    gets={"max_rows": 500, "rows": 3},
    remark="judged as 500, which is what the tool gets",
)
EXPORT_501: Final = Step(
    shown="export_records(max_rows=501)",
    tool="export_records",
    arguments={"max_rows": 501},
    by=("export-row-limit",),
    told="An export holds at most 500 rows. Ask for fewer.",
)

BILLING: Final = (
    Step(shown="read_record(r1)", tool="read_record", arguments={"record_id": "r1"}, by=("billing-reads",)),
    Step(
        shown="read_record(r9)  restricted",
        tool="read_record",
        arguments={"record_id": "r9"},
        by=("restricted-needs-a-person",),
        told="This record is restricted. A member of staff has to be the user of the run.",
    ),
    EXPORT_500,
    EXPORT_5_00,
    EXPORT_501,
    Step(
        shown="update_record(write_off=1000.00)",
        tool="update_record",
        arguments={"record_id": "r3", "write_off": "1000.00"},
        by=("billing-settles",),
        gets={"balance": "310.40"},
    ),
    Step(
        shown="update_record(write_off=1000.01)",
        tool="update_record",
        arguments={"record_id": "r3", "write_off": "1000.01"},
        by=("large-write-off",),
        told="More than 1000.00 is written off by a person.",
    ),
    Step(
        shown="update_record(write_off=1000.00001)",
        tool="update_record",
        arguments={"record_id": "r3", "write_off": "1000.00001"},
        told="The arguments cannot be judged safely",
        reason="invalid_argument",
        remark="never rounded: 1000.0000 would have been allowed",
    ),
    Step(
        shown="read_record(r3)",
        tool="read_record",
        arguments={"record_id": "r3"},
        by=("billing-reads",),
        gets={"balance": "310.40"},
        remark="owes 310.40: of the three write-offs, one happened",
    ),
)

MAILER: Final = (
    Step(
        shown="read_record(r1)",
        tool="read_record",
        arguments={"record_id": "r1"},
        by=("billing-reads", "mailer-sends"),
    ),
    Step(
        shown="export_records(max_rows=1)",
        tool="export_records",
        arguments={"max_rows": 1},
        told="Denied by policy.",
        reason="grant",
        remark="every policy would allow it; what was handed on does not cover it",
    ),
)
