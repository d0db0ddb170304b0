"""The same answers on every transport and in both protocol eras."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.world import ERAS, TRANSPORTS, Era, Transport, connected, make_world, meta, text


@pytest.mark.parametrize("era", ERAS)
@pytest.mark.parametrize("transport", TRANSPORTS)
async def test_a_call_is_answered_alike_everywhere(transport: Transport, era: Era, tmp_path: Path) -> None:
    """An allow, a denial, a bad argument and an unknown tool read the same on each transport and in each era."""
    world = make_world(tmp_path)

    async with connected(world, transport, era) as client:
        listed = await client.list_tools()
        allowed = await client.call_tool("read", {"record_id": "r1"})
        coerced = await client.call_tool("export", {"max_rows": "500"})
        denied = await client.call_tool("read", {"record_id": "r9"})
        over = await client.call_tool("export", {"max_rows": 501})
        wrong = await client.call_tool("export", {"max_rows": "a lot"})
        unknown = await client.call_tool("no_such_tool", {})

    assert [tool.name for tool in listed.tools] == ["read", "export"]
    assert allowed.structured_content == {"record_id": "r1", "text": "secret of the patient"}
    assert text(coerced) == "500 rows"
    assert meta(denied) | {"id": ""} == {"id": "", "effect": "deny", "reason": "denied", "retry": "change"}
    assert text(denied) == (
        "Denied by policy: This record is restricted. Do not repeat this call unchanged. "
        f"Decision {meta(denied)['id']}."
    )
    assert "At most 500 rows." in text(over)
    assert meta(wrong)["reason"] == "invalid_argument"
    assert "a lot" not in text(wrong)
    assert text(unknown).replace(meta(unknown)["id"], "") == (
        "Denied by policy. Do not repeat this call unchanged. Decision ."
    )
