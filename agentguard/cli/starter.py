"""The policies that `agentguard dev` begins with: short, and valid for any server."""

from __future__ import annotations

import os
from contextlib import ExitStack, suppress
from typing import TYPE_CHECKING, Final

from agentguard.host.private import cannot_write

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

NAME: Final = "10-starter.cedar"

STARTER: Final = """\
// Written by `agentguard dev` to begin with. It is yours now: nothing writes it again.
//
// What no policy permits is denied, and one `forbid` outweighs every `permit`. A tool says
// in its annotations what it does; one without any counts as destructive, as MCP has it.
//
// To allow a tool without asking, add it to both lists: Action::"add_note", for example.

@id("starter-read-only")
permit (
  principal,
  action in [Action::"read-only", Action::"resources/read", Action::"prompts/get"],
  resource
);

@id("starter-approved")
permit (principal, action, resource)
when { context has approval };

@id("starter-ask-a-person")
@obligation("approval")
@advice("This call may change something. A person has to approve it.")
forbid (principal, action, resource)
unless {
  action in [Action::"read-only", Action::"resources/read", Action::"prompts/get"] ||
  context has approval
};
"""


def write_starter(folder: Path) -> Path | None:
    """Write the starter policies into *folder*, if it has no policies.

    Returns:
        The file that was written; None if there are policies already.

    Raises:
        ConfigurationError: The folder cannot be written to.
    """
    with suppress(FileNotFoundError, NotADirectoryError), os.scandir(folder) as entries:
        if any(entry.name.lower().endswith(".cedar") for entry in entries):
            return None
    write_new(folder, {NAME: STARTER})
    return folder / NAME


def write_new(folder: Path, files: Mapping[str, str]) -> None:
    """Write files that are not there yet: all of them, or none.

    Args:
        folder: Where; it is made if it is not there.
        files: Their texts, by their names relative to it.

    Raises:
        ConfigurationError: One of them is there, or the folder cannot be written to.
    """
    try:
        with ExitStack() as unfinished:
            for name, text in files.items():
                file = folder / name
                for above in reversed([one for one in file.parents if not one.exists()]):
                    above.mkdir()
                    # Whoever begins again is not told that something is there.
                    unfinished.callback(_remove_empty, above)
                # Never over a file that is there, whoever was faster.
                with file.open("x", encoding="utf-8") as opened:
                    # Half of it would pass for somebody's own.
                    unfinished.callback(file.unlink)
                    opened.write(text)
            unfinished.pop_all()
    except OSError as error:
        raise cannot_write(folder, error) from error


def _remove_empty(folder: Path) -> None:
    with suppress(OSError):
        folder.rmdir()
