"""What stands in the place of a secret, wherever it would have been shown or kept.

Most of a record is the guard's own words. Some of it is the caller's: an id, an argument that
the developer has kept. A caller that gives its own token there would have it kept for years.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from agentguard.evidence.vocabulary import AttributeValue

WITHHELD: Final = "[credential]"
"""What is there instead."""


def without_secrets(
    attributes: Mapping[str, AttributeValue],
    inputs: Mapping[str, object] | None,
    stops: Callable[[object], bool] | None,
) -> tuple[Mapping[str, AttributeValue], Mapping[str, object] | None]:
    """Return what a record may hold.

    Args:
        attributes: What it would.
        inputs: The arguments that it would.
        stops: Returns whether a value would show a secret, and tells of it; None where there are none.
    """
    if stops is None:
        return attributes, inputs
    # Secrets are rare: one look for all.
    texts = "\n".join(
        [one if isinstance(one, str) else " ".join(one) for one in attributes.values() if isinstance(one, str | tuple)]
    )
    if not stops(texts if inputs is None else (texts, inputs)):
        return attributes, inputs
    kept: dict[str, AttributeValue] = {}
    for name, value in attributes.items():
        if isinstance(value, tuple):
            kept[name] = tuple(WITHHELD if stops(one) else one for one in value)
        else:
            kept[name] = WITHHELD if stops(value) else value
    return kept, inputs and {name: WITHHELD if stops(value) else value for name, value in inputs.items()}
