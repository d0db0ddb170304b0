"""A command that is imported when it is used: to list commands, or to complete one, none of them has to be."""

from __future__ import annotations

from functools import cached_property
from importlib import import_module
from typing import Any, Final

import typer
from typer.core import TyperArgument, TyperCommand
from typer.main import get_command

MARKUP: Final = "markdown"
SETTINGS: Final = {"help_option_names": ["-h", "--help"]}


class LazyCommand(TyperCommand):
    """What a list says of a command, or of a group of them.

    Args:
        name: How it is called.
        place: Where its function is, or the app of a group: ``module:name`` below this package.
        says: The first sentence of its help.
        panel: What it is listed with.
        **options: Further options of `typer.Typer.command`.
    """

    def __init__(self, name: str, place: str, says: str, *, panel: str, **options: Any) -> None:
        super().__init__(name, help=says, rich_help_panel=panel)
        self._place = place
        self._options = options

    @cached_property
    def loaded(self) -> Any:
        """The command itself."""
        module, _, name = self._place.partition(":")
        app = getattr(import_module(f"agentguard.cli.{module}"), name)
        if not isinstance(app, typer.Typer):
            function, app = app, typer.Typer(add_completion=False, rich_markup_mode=MARKUP)
            app.command(self.name, **self._options)(function)
        return readable(get_command(app))

    def make_context(self, *arguments: Any, **options: Any) -> Any:
        """Read its command line, whereupon its own command is what runs, helps and completes."""
        return self.loaded.make_context(*arguments, **options)


class _Argument(TyperArgument):
    """An argument whose help does not say how Python calls its type."""

    def display_type_rich(self, ctx: Any) -> str:  # noqa: ARG002  typer asks with it
        return ""


def readable(command: Any) -> Any:
    """Return a command without what its help, and that of those in it, says to nobody who types it."""
    context = command.context_class(command, info_name="", **SETTINGS)
    for parameter in command.get_params(context):
        if isinstance(parameter, TyperArgument):
            parameter.__class__ = _Argument
        elif parameter.is_flag:
            parameter.metavar = ""
    for inner in getattr(command, "commands", {}).values():
        readable(inner)
    return command
