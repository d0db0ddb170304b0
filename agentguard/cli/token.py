"""`agentguard token`: a token for a tool that wants one on its command line."""

from __future__ import annotations

from contextlib import closing
from typing import Final, cast

from agentguard.cli.issuing import open_issuer
from agentguard.cli.options import (
    AgentOption,
    AudienceOption,
    EndsInOption,
    GrantOption,
    IssuerKeyOption,
    IssuerOption,
    JsonOption,
    PurposeOption,
    ScopeOption,
    ServerOption,
    StoreOption,
    TaskOption,
    ToolOption,
    UserOption,
    audience_of,
    read_grant,
    require_bounds,
    seconds,
)
from agentguard.cli.output import hint, result, result_json
from agentguard.errors import ConfigurationError
from agentguard.lifecycle.store import Store

# As long as a server accepts a token. A longer run would outlive its only one: nobody renews it here.
_LONGEST: Final = 900


def token(
    *,
    agent: AgentOption,
    tool: ToolOption = None,
    grant: GrantOption = None,
    audience: AudienceOption = None,
    server: ServerOption = None,
    user: UserOption = None,
    task: TaskOption = None,
    purpose: PurposeOption = None,
    scope: ScopeOption = None,
    ends_in: EndsInOption = "5m",
    issuer: IssuerOption = None,
    issuer_key: IssuerKeyOption = None,
    store: StoreOption = None,
    as_json: JsonOption = False,
) -> None:
    """Print a token of a new run, which is over in minutes.

    For curl, the MCP Inspector, or the command that a host asks for headers. For anything
    that lasts longer there is `agentguard run`, which renews.

    Example: `agentguard token --agent billing-agent --tool read_record --audience http://127.0.0.1:8000/mcp`
    """
    lasts = seconds(ends_in)
    if not 0 < lasts <= _LONGEST:
        message = (
            f"--ends-in wants up to 15m, since nobody renews this token, got `{ends_in}`: "
            "use `agentguard run` for what lasts longer"
        )
        raise ConfigurationError(message)
    require_bounds(tools=tool, grant=grant)
    text = read_grant(grant)
    opened = open_issuer(
        issuer=issuer, issuer_key=issuer_key, store=store, audience=audience_of(audience=audience, server=server)
    )
    with closing(cast("Store", opened.store)):
        run = opened.begin(
            agent=agent,
            user=user,
            task=task,
            purpose=purpose,
            scopes=scope or (),
            tools=tool,
            grant=text,
            ends_in=lasts,
            token_lifetime=lasts,
        )
        issued = run.token()
    if as_json:
        facts = run.facts
        result_json(
            {
                "token": issued,
                "run_id": run.id,
                "issuer": opened.issuer,
                "audience": facts.audience,
                "agent": facts.agent,
                "user": facts.user,
                "task": facts.task,
                "purpose": facts.purpose,
                "issued_at": facts.began,
                "ends_at": facts.ends_at,
            }
        )
        return
    result(issued)
    hint(f"run {run.id} of `{agent}`, over in {lasts} s: `agentguard revoke {run.id}` ends it now")
