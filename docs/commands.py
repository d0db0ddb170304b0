"""Write the page of commands from the commands themselves.

The page is kept beside the others, so that it can be read in a clone; a test fails when
it is not what this writes::

    .venv/bin/python docs/commands.py
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from agentguard.cli.main import COMMANDS

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

PAGE: Final = Path(__file__).parent / "pages" / "reference" / "commands.md"

_HEAD: Final = """\
# Commands

This page is made from what `agentguard --help` says. A command writes its result to standard output and everything else
to standard error, so that a result can be piped; colours are for terminals alone. With `--json`, the names of the
fields stay as they are.

| Exit status | Says |
| --- | --- |
| 0 | done |
| 1 | refused, or something was found: the agent was ended, the store cannot be used, no such run on record |
| 2 | could not run: a mistake on the command line or in the set-up, told in one line |
| 130 | interrupted with Ctrl-C |

`agentguard run` exits as the command that it starts; see there. `agentguard --version` shows the version, and
`agentguard --install-completion` completes commands and options in your shell.
"""


def commands_page() -> str:
    """Return the page's Markdown."""
    lines = [_HEAD]
    for name, command in _commands({str(lazy.name): lazy.loaded for lazy in COMMANDS}):
        lines += [f"## agentguard {name}", "", *_help(command.help), ""]
        arguments = [param for param in command.params if param.param_type_name == "argument"]
        options = [param for param in command.params if param.param_type_name == "option" and not param.hidden]
        for kind, params in (("Argument", arguments), ("Option", options)):
            if params:
                lines += [_row(kind, "Says"), _row("---", "---"), *(_param(param) for param in params), ""]
    return "\n".join(lines)


def _commands(commands: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    """Yield every command with its whole name, those of a group after one another."""
    for name, command in commands.items():
        if hasattr(command, "commands"):
            yield from _commands(command.commands, f"{prefix}{name} ")
        else:
            yield f"{prefix}{name}", command


def _help(text: str) -> list[str]:
    """Return a command's help, with its example as a block."""
    lines: list[str] = []
    for paragraph in text.strip().split("\n\n"):
        example = re.fullmatch(r"Example: `(.*)`", " ".join(paragraph.split()))
        words = " ".join(line.strip() for line in paragraph.splitlines())
        lines += ["```shell", example[1], "```", ""] if example else [words, ""]
    return lines[:-1]


def _param(param: Any) -> str:
    if param.param_type_name == "argument":
        name = f"`{param.metavar}`"
    else:
        value = f" {param.metavar}" if param.metavar else ""
        name = ", ".join(f"`{option}{value}`" for option in sorted(param.opts, key=len, reverse=True))
    says = param.help or ""
    if param.required:
        says += " Required."
    elif param.default and isinstance(param.default, (str, int)) and not param.is_flag:
        says += f" Default: `{param.default}`."
    # As typer shows a default that it does not know itself.
    says = re.sub(r" +\[default: (\w+)\]", r" Default: \1.", says)
    return _row(name, says)


def _row(*cells: str) -> str:
    return f"| {' | '.join(cell.replace('|', chr(92) + '|') for cell in cells)} |"


if __name__ == "__main__":
    PAGE.write_text(commands_page(), "utf-8")
