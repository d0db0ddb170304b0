"""Calculate what a policy's text writes out, `8 * 60`, as Cedar does."""

from __future__ import annotations

from typing import Final

from agentguard.policy.text.tree import Node, Op, fold, path_of

LEAST: Final = -(2**63)
MOST: Final = 2**63 - 1
"""Between these two is every whole number of Cedar's; a calculation that passes them fails."""

CALCULATES: Final = frozenset((Op.PLUS, Op.MINUS, Op.TIMES, Op.NEGATIVE))


def fits_always(node: Node) -> bool:
    """Return whether a calculation is the time between two moments, none of which was calculated itself.

    Wherever they come from, they are of the years 0 to 9999, and so many milliseconds are few.
    """
    return (
        node.op is Op.METHOD
        and node.value == "durationSince"
        and all(
            bool(path_of(part)) or (part.op is Op.CALL and all(one.op is Op.LITERAL for one in part.parts))
            for part in node.parts
        )
    )


def number_of(node: Node) -> int | None:
    """Return the value of a calculation; None where not all of it is written out, or where it fails."""
    return fold(node, _calculated)


def _calculated(node: Node, parts: tuple[int | None, ...]) -> int | None:
    known = [part for part in parts if part is not None]
    if len(known) < len(parts):
        return None
    match node.op:
        case Op.LITERAL:
            # Not `true`, which is a number to Python.
            found = node.value if type(node.value) is int else None
        case Op.PLUS:
            found = known[0] + known[1]
        case Op.MINUS:
            found = known[0] - known[1]
        case Op.TIMES:
            found = known[0] * known[1]
        case Op.NEGATIVE:
            found = -known[0]
        case _:
            found = None
    # A lone literal past the end is the text of the least number, without its sign.
    within = found is not None and (node.op is Op.LITERAL or LEAST <= found <= MOST)
    return found if within else None
