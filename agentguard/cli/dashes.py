"""Command lines on which a command of somebody else follows ``--``."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from typer.core import TyperCommand
from typer.exceptions import TyperException

from agentguard.cli.output import fail, mistyped

if TYPE_CHECKING:
    from collections.abc import Sequence

COMMAND: Final = "agentguard.command"
OURS: Final = 125
"""Exit status of `run` for a mistake or a failure of ours; every other is the command's."""


class WrapCommand(TyperCommand):
    """Reads the command line of `wrap`: what follows ``--`` is the command of a server, and not ours."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:  # noqa: D102
        own = args[: args.index("--")] if "--" in args else args
        ctx.meta[COMMAND] = None if own is args else args[len(own) + 1 :]
        return super().parse_args(ctx, own)


class RunCommand(TyperCommand):
    """Reads the command line of `run`: what follows ``--`` is not ours."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:  # noqa: D102
        own = args[: args.index("--")] if "--" in args else args
        if "--" not in args and not {"-h", "--help"} & set(args):
            fail(_without_dashes(args), OURS)
        if args[len(own) + 1 :][:1] in ([], [""]) and own != args:
            fail("`agentguard run` wants a command after `--`, got none: add the program and its arguments", OURS)
        try:
            return super().parse_args(ctx, args)
        except TyperException as error:
            fail(f"{mistyped(error.format_message())} (see `agentguard run --help`)", OURS)


def _without_dashes(args: Sequence[str]) -> str:
    """Return what was probably meant by a command line without ``--``."""
    # Most of our options have a value, so what follows one is no command.
    words = [
        word
        for before, word in zip(("", *args), args, strict=False)
        if not word.startswith("-") and ("=" in before or not before.startswith("-"))
    ]
    if not words:
        return "`agentguard run` wants a command after `--`, got none: agentguard run --agent … -- COMMAND"
    meant = _startable(words[0])
    return f"`agentguard run` wants its command after `--`, got `{words[0]}`: agentguard run --agent … -- {meant}"


def _startable(program: str) -> str:
    return f"python {program}" if program.endswith(".py") else program
