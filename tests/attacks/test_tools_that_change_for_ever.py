"""The attack: the program behind the guard changes its tools without end, to keep the guard busy.

Each change costs: policies are compiled for what there is. So no change may cost more than
the one before, and a call may not be judged again and again.
"""

from __future__ import annotations

from itertools import count
from pathlib import Path
from typing import Any
from unittest.mock import Mock

import anyio
import pytest
from mcp_types import Tool, ToolAnnotations

from agentguard.guarding import rulebook
from agentguard.live import compiling
from agentguard.policy.files.source import compile_policies
from tests.attacks.test_tools_that_change_in_flight import ANY, READS, WIPE, Program, behind, tidy
from tests.world import connected, make_world, meta, text

EVERYTHING_NAMED = '@id("all") permit (principal, action, resource);'
TYPED = """
@id("all") permit (principal, action, resource);
@id("not-all") forbid (principal, action, resource) when { context.input has every && context.input.every };
"""


def reading(name: str, **properties: Any) -> Tool:
    """Return a tool that only reads."""
    schema = {"type": "object", "properties": properties}
    return Tool(name=name, input_schema=schema, annotations=ToolAnnotations(read_only_hint=True))


def counting(monkeypatch: pytest.MonkeyPatch) -> Mock:
    """Return what counts how often policies are compiled, and for what."""
    spy = Mock(wraps=compile_policies)
    monkeypatch.setattr(compiling, "compile_policies", spy)
    return spy


async def test_tools_that_are_renamed_pile_up_to_a_bound(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The newest of what is gone is remembered, and what the policies began with."""
    monkeypatch.setattr(rulebook, "_MOST_GONE", 2)
    compiled = counting(monkeypatch)
    async with behind(tmp_path, monkeypatch) as (program, client, _):
        for number in range(6):
            program.becomes(reading(f"look-{number}"))
            assert text(await client.call_tool(f"look-{number}", {})) == "done"
        program.becomes(reading("look-0"))
        again = await client.call_tool("look-0", {})

    names = [{tool.name for tool in one.args[1]} - {"resources/read", "prompts/get"} for one in compiled.call_args_list]
    assert names[-2] == {"tidy", "wipe", "look-3", "look-4", "look-5"}
    assert max(map(len, names)) == 5
    assert text(again) == "done"


async def test_one_tool_that_does_not_fit_is_found_among_many(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Not by compiling for each of them."""
    compiled = counting(monkeypatch)
    many = [reading(f"look-{number}") for number in range(31)]
    async with behind(tmp_path, monkeypatch, policies=TYPED) as (program, client, _):
        program.becomes(*many, reading("bad", every={"type": "string"}))
        results = [await client.call_tool(name, {}) for name in ("look-0", "look-30", "bad")]

    assert [result.is_error for result in results] == [False, False, True]
    assert compiled.call_count <= 1 + 11


async def test_many_tools_that_do_not_fit_are_given_up(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What was not found to fit by then is denied."""
    monkeypatch.setattr(rulebook, "_MOST_COMPILED", 4)
    compiled = counting(monkeypatch)
    many = [reading(f"bad-{number}", every={"type": "string"}) for number in range(32)]
    async with behind(tmp_path, monkeypatch, policies=TYPED) as (program, client, _):
        program.becomes(*many, WIPE)
        results = [await client.call_tool(name, {}) for name in ("bad-0", "wipe")]

    assert [result.is_error for result in results] == [True, False]
    assert compiled.call_count < 10


async def test_tool_that_is_another_whenever_it_is_judged(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """It is judged anew as what it is now, but not without end."""
    numbers = count()

    class Restless(Program):
        async def tools(self) -> list[Tool]:
            schema = {**ANY, "properties": {f"argument-{next(numbers)}": {"type": "string"}}}
            self.becomes(tidy(deletes=False, schema=schema), WIPE)
            return list(self.now)

    async with behind(tmp_path, monkeypatch, policies=READS, program=Restless()) as (program, client, _):
        program.changed()
        with anyio.fail_after(10):
            result = await client.call_tool("tidy", {})

    assert meta(result)["reason"] == "denied"
    assert program.ran == []
    assert next(numbers) < 20


async def test_decorated_function_comes_back_after_it_was_forgotten(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is learned like one that was never there."""
    monkeypatch.setattr(rulebook, "_MOST_GONE", 1)
    world = make_world(tmp_path, policies=EVERYTHING_NAMED, types=None)

    async def first() -> str:
        return "ran"

    async def second() -> str:
        return "ran"

    guarded = [world.guard.tool(function) for function in (first, second)]
    async with connected(world, "memory", "2026-07-28") as client:
        for function in guarded:
            world.server.add_tool(function)
            await client.call_tool(function.__name__, {})
        for function in guarded:
            world.server.remove_tool(function.__name__)
        gone = await client.call_tool("first", {})
        world.server.add_tool(guarded[0])
        back = await client.call_tool("first", {})

    assert meta(gone)["reason"] == "denied"
    assert text(back) == "ran"
