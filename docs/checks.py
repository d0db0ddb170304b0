"""Write the page of what `agentguard check` finds, from the tables in the code and the broken folders of the tests.

The page is kept beside the others, so that it can be read in a clone; a test fails when
it is not what this writes::

    .venv/bin/python docs/checks.py
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Final

from agentguard.analysis.checking.refusals import REFUSALS
from agentguard.analysis.lints.run import LINTS

if TYPE_CHECKING:
    from collections.abc import Iterator

    from agentguard.analysis.lints.lint import Lint

PAGE: Final = Path(__file__).parent / "pages" / "reference" / "checks.md"
BROKEN: Final = Path(__file__).parent.parent / "tests" / "policy" / "broken"

_EXPECTED: Final = "expected.txt"
# What a broken folder has beside it is no part of the example.
_BASE: Final = "base.cedar"
_LANGUAGES: Final = {".cedar": "cedar", ".cedarschema": "cedarschema", ".json": "json", ".txt": "text"}
# Of a longer file, what the folder's example is about could not be seen.
_LINES: Final = 14
_WIDTH: Final = 200

_HEAD: Final = """\
# What `agentguard check` finds

This page is made from the tables in the code. Each example below is a folder under `tests/policy/broken`, whose
output is tested; what is not shown is as in `examples/records/policies`.

**Errors** keep the guard from loading a folder, or say that a policy does not mean what it says. **Warnings** are
for somebody to look at. Both make the command exit with 1. **Notes** are good to know, and fail nothing.

## Silence a finding

A lint is silenced above the policy that it is about, with a reason that whoever reads the policy later understands:

```cedar
@id("small-exports")
@owner("billing-team@example.com")
@silence_agent_in_when("three agents, and one policy for all of them")
permit (principal, action == Action::"export_records", resource)
when { principal in Agent::"billing-agent" };
```

The annotation is `silence_` and the lint's name, with `_` for `-`. It counts for that policy alone: what another
policy makes of the same tool is told of that one. An annotation without a reason silences nothing, and one that has
nothing to silence is told. What keeps the guard from loading a folder cannot be silenced.
"""

_LINTS: Final = """\
## Lints

What the guard would load, and somebody should look at. A policy is only said never to match, or to be shadowed by
another, where that is proved for every call.
"""

_ERRORS: Final = """\
## Errors

What the guard refuses to load, when a server starts as when it reloads.
"""


def checks_page() -> str:
    """Return the page's Markdown."""
    lines = [_HEAD, _LINTS, *_table()]
    for lint in LINTS.values():
        lines += ["", f"### {lint.name}", "", f"*{lint.severity}* — {lint.why}", "", *_example(lint.name), ""]
        lines += [f"**Mend it:** {lint.fix}", "", _silence(lint)]
    lines += ["", _ERRORS]
    for name, why in REFUSALS.items():
        lines += [f"### {name}", "", why, ""]
        lines += [*_example(name), ""] if (BROKEN / name).is_dir() else []
    return "\n".join(lines).rstrip() + "\n"


def _table() -> Iterator[str]:
    yield "| Lint | Severity | Why |"
    yield "| --- | --- | --- |"
    for lint in LINTS.values():
        yield f"| [`{lint.name}`](#{lint.name}) | {lint.severity} | {lint.why} |"


def _shortened(line: str) -> str:
    return line if len(line) <= _WIDTH else f"{line[: _WIDTH - 1]}…"


def _silence(lint: Lint) -> str:
    if not lint.silenceable:
        return "It cannot be silenced."
    return f'**Silence it:** `@{lint.annotation}("why it does not matter here")`'


def _example(name: str) -> Iterator[str]:
    folder = BROKEN / name
    for path in sorted(folder.rglob("*")):
        if path.is_dir() or path.name in {_EXPECTED, _BASE}:
            continue
        lines = path.read_text("utf-8", errors="replace").splitlines()
        shown = path.relative_to(folder)
        if not lines:
            yield f"Without `{shown}`:"
            yield ""
        elif len(lines) <= _LINES:
            yield f'```{_LANGUAGES[path.suffix]} title="{shown}"'
            yield from (_shortened(line) for line in lines)
            yield "```"
            yield ""
    yield "```console"
    yield from (folder / _EXPECTED).read_text("utf-8").splitlines()
    yield "```"


if __name__ == "__main__":
    PAGE.write_text(checks_page(), "utf-8")
