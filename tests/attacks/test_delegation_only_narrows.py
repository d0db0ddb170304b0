"""A reader that delegates to an exporter.

Judged at its end alone, the chain may do what only the exporter may: the reader has
exported. Judged at every link, delegating can only narrow.
"""

import pytest

from agentguard.model import Invocation, Reason
from agentguard.policy.deciding.engine import decide, may_ever
from agentguard.testing import unsafe_invocation
from tests.policy.records import policy_set, reads, searches

POLICIES = (
    '@id("reader-reads") permit (principal in Agent::"reader", action == Action::"read", resource);',
    '@id("exporter-does-both") permit (principal in Agent::"exporter", action, resource);',
)
ALL = "permit (principal, action, resource);"
READ = 'permit (principal, action == Action::"read", resource);'


def run(agent: str, grant: str | None, *ancestors: Invocation) -> Invocation:
    """Return a run of *agent* that its ancestors delegated to."""
    return unsafe_invocation(agent, run_id=f"{agent}-{len(ancestors)}", grant=grant, ancestors=ancestors)


def test_the_exporter_alone_may_search() -> None:
    """So the last link by itself would allow the chain."""
    assert decide(searches(run("exporter", ALL)), policy_set(*POLICIES)).allowed


def test_a_chain_may_do_no_more_than_its_root() -> None:
    """The denial says at which link."""
    policies = policy_set(*POLICIES)
    chain = run("exporter", ALL, run("reader", ALL))

    decision = decide(searches(chain), policies)

    assert (decision.reason, decision.link) == (Reason.NO_PERMIT, 0)
    assert not may_ever(chain, "search", policies)
    assert decide(reads(chain), policies).allowed


@pytest.mark.parametrize("link", [0, 1, 2])
def test_a_chain_may_do_no_more_than_the_narrowest_grant(link: int) -> None:
    """Wherever it is."""
    policies = policy_set(*POLICIES)
    grants = [READ if place == link else ALL for place in range(3)]
    root = run("exporter", grants[0])
    middle = run("exporter", grants[1], root)
    chain = run("exporter", grants[2], root, middle)

    decision = decide(searches(chain), policies)

    assert (decision.reason, decision.link) == (Reason.GRANT, link)
    assert decide(reads(chain), policies).allowed
