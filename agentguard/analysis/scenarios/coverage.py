"""What the scenarios of a policy folder have seen of its policies.

Two measures. Coverage tells which policies no scenario saw fire, or saw stay silent, among
the calls that they are for. Mutation tells which small changes of a policy no scenario
would notice: it puts each mutant in its policy's place and judges the same calls again.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from agentguard.analysis.finding import Finding
from agentguard.analysis.proofs.equivalence import match_the_same
from agentguard.analysis.scenarios.mutants import MOST, mutants_of
from agentguard.analysis.scenarios.suites import run
from agentguard.analysis.supposed import decided, judge, suppose
from agentguard.errors import PolicyError
from agentguard.model import printable
from agentguard.policy.deciding.sketch import keys_of
from agentguard.policy.deciding.trial import matching
from agentguard.policy.problem import did_you_mean
from agentguard.policy.text.lexer import tokens

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence

    from agentguard.analysis.scenarios.cases import CaseResult, Explained, Suite
    from agentguard.analysis.scenarios.mutants import Mutant
    from agentguard.analysis.workspace import Workspace
    from agentguard.policy.deciding.compiled import Policy, PolicySet
    from agentguard.policy.deciding.sketch import Key

MOST_IN_ALL: Final = 2_000
"""How many mutants of one folder there are at most: each is compiled together with all other policies."""

_FOR_ALL: Final = ["(", "principal", "action", "resource", ")", ";"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Covered:
    """What the scenarios have seen of one policy.

    Attributes:
        policy: The policy.
        called: Whether a call that its head's action covers was there.
        fired: Whether it had a part in a decision: a permit allowed a call, a forbid denied one.
        silent: Whether it was there and the policy did not match it;
            there can be none for a policy that says nothing else.
    """

    policy: Policy
    called: bool
    fired: bool
    silent: bool

    @property
    def both(self) -> bool:
        """Whether both was seen."""
        return self.fired and self.silent


@dataclass(frozen=True, slots=True, kw_only=True)
class Coverage:
    """What the scenarios have seen of each policy, in the order of the folder."""

    policies: tuple[Covered, ...]

    @property
    def both(self) -> int:
        """How many were seen to fire, and to stay silent."""
        return sum(covered.both for covered in self.policies)

    @property
    def complete(self) -> bool:
        """Whether all were."""
        return self.both == len(self.policies)

    def findings(self) -> list[Finding]:
        """Return a finding for each policy of which something was not seen."""
        return [_uncovered(covered) for covered in self.policies if not covered.both]


def coverage(results: Iterable[CaseResult], policies: PolicySet) -> Coverage:
    """Measure what scenarios have seen of policies.

    Args:
        results: What came of their cases.
        policies: The policies that they were judged by.
    """
    seen: dict[str, set[bool | None]] = {id_: set() for id_ in policies.policies}
    for result in results:
        for request in decided(result.got, policies):
            for link in matching(request, policies):
                for id_, matched in link.items():
                    # What a grant says is not in the folder.
                    if id_ in seen:
                        # One that matched and decided nothing, as a permit beside a forbid, did not show what it does.
                        seen[id_].add(None if matched and id_ not in result.got.policy_ids else matched)
    return Coverage(
        policies=tuple(
            Covered(
                policy=policy,
                called=bool(seen[id_]),
                fired=True in seen[id_],
                silent=False in seen[id_] or _is_for_all(policy),
            )
            for id_, policy in policies.policies.items()
        )
    )


def _is_for_all(policy: Policy) -> bool:
    """Whether a policy has no condition, and demands nothing of principal and resource."""
    return [token.text for token in tokens(policy.part.text) if token.text != ","][1:] == _FOR_ALL


def _uncovered(covered: Covered) -> Finding:
    policy = covered.policy
    if covered.called:
        lacking = "stay silent" if covered.fired else "fire"
        what = f"no scenario saw `{policy.id}` {lacking}: add a case in which it does"
    else:
        what = (
            f"no scenario calls what `{policy.id}` is for: add a case in which it fires, and one in which it does not"
        )
    return Finding(
        file=policy.file, line=policy.line, column=policy.column, name="uncovered-policy", what=what, policy=policy.id
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class MutationReport:
    """Which mutants the scenarios notice.

    Attributes:
        total: How many mutants were tried. One that does not fit the schema, or is proved to
            match what its policy matches, is none.
        killed: How many were noticed.
        survivors: Those that were not, and that nobody has explained.
        explained: Those that were not, with why that is as it should be.
        idle: Explanations that explain nothing.
        left_out: How many more there could be, past the bounds.
    """

    total: int
    killed: int
    survivors: tuple[Mutant, ...]
    explained: tuple[tuple[Mutant, Explained], ...]
    idle: tuple[Finding, ...]
    left_out: int

    def findings(self) -> list[Finding]:
        """Return a finding for each survivor, and for each explanation that explains nothing."""
        return sorted([*(_survived(mutant) for mutant in self.survivors), *self.idle])


def survivors(
    workspace: Workspace,
    suites: Iterable[Suite],
    on_progress: Callable[[int, int], None] = lambda _done, _total: None,
    *,
    most: int = MOST_IN_ALL,
) -> MutationReport:
    """Put each mutant of each policy in its place, and judge again what the scenarios suppose.

    Args:
        workspace: The policy folder.
        suites: Its files of scenarios. Cases that fail as the policies are notice nothing.
        on_progress: Told how many mutants are done, of how many.
        most: How many to try at most; of more, some from all over the folder.
    """
    known = tuple(suites)
    passed = [result for suite in known for result in run(workspace, suite) if result.passed]
    mutants, left_out = _all_mutants(workspace, most)
    killed = 0
    lived: list[Mutant] = []
    for done, mutant in enumerate(mutants):
        on_progress(done, len(mutants))
        noticed = _noticed(workspace, mutant, passed)
        if noticed is False and not _is_equivalent(mutant, workspace):
            lived.append(mutant)
        killed += noticed is True
    on_progress(len(mutants), len(mutants))
    explanations = [(suite, explained) for suite in known for explained in suite.survivors]
    by_name = {(explained.policy, explained.mutant): explained for _, explained in explanations}
    return MutationReport(
        total=killed + len(lived),
        killed=killed,
        survivors=tuple(mutant for mutant in lived if _name(mutant) not in by_name),
        explained=tuple((mutant, by_name[_name(mutant)]) for mutant in lived if _name(mutant) in by_name),
        idle=tuple(_idle(workspace, explanations, lived, mutants, complete=not left_out)),
        left_out=left_out,
    )


def _all_mutants(workspace: Workspace, most: int) -> tuple[list[Mutant], int]:
    policies = workspace.source.policies
    each = min(MOST, max(1, most // max(len(policies), 1)))
    found: list[Mutant] = []
    left_out = 0
    for policy in policies:
        mutants, more = mutants_of(policy, workspace.limits, most=each)
        found += mutants
        left_out += more
    step = -(-len(found) // most) or 1
    return found[::step], left_out + len(found) - len(found[::step])


def _keys(policies: PolicySet) -> Mapping[str, frozenset[Key]]:
    """Return for each action what the head of a policy that covers it can ask for."""
    return {name: frozenset(keys_of(name, action.tool.groups)) for name, action in policies.actions.items()}


def _is_equivalent(mutant: Mutant, workspace: Workspace) -> bool:
    changed = mutant.policy
    if changed is None or _does(changed) != _does(mutant.original):
        return False
    return match_the_same(mutant.original, changed, workspace)


def _does(policy: Policy) -> tuple[bool, bool]:
    """Return what a policy does where it matches: whether it permits, and whether a person can lift it."""
    return policy.part.permit, policy.approval


def _noticed(workspace: Workspace, mutant: Mutant, results: Sequence[CaseResult]) -> bool | None:
    """Tell whether a case comes out otherwise with a mutant in place; None if it does not fit the schema."""
    policies = [policy if policy.id != mutant.original.id else mutant.policy for policy in workspace.source.policies]
    try:
        changed = workspace.with_policies([policy for policy in policies if policy is not None])
    except PolicyError:
        return None
    return any(not _still_passes(result, changed) for result in _concerned(workspace.policies, mutant, results))


def _concerned(policies: PolicySet, mutant: Mutant, results: Sequence[CaseResult]) -> Iterator[CaseResult]:
    """Yield the cases whose action the policy covers, or covers as it is now; those that it decided come first."""
    id_ = mutant.original.id
    keys = {*mutant.original.part.keys, *(() if mutant.policy is None else mutant.policy.part.keys)}
    actions = {name for name, own in _keys(policies).items() if own & keys}
    concerned = [result for result in results if result.case.call.action in actions]
    yield from sorted(concerned, key=lambda result: id_ not in result.got.policy_ids)


def _still_passes(result: CaseResult, workspace: Workspace) -> bool:
    # A call that was refused halfway, or before any policy was asked, is denied whatever its requests come to.
    asked = result.requests if result.got.whole else ()
    verdict = judge(asked, workspace.policies) if asked else suppose(workspace, result.case.call)
    return result.wanted.met_by(verdict)


def _name(mutant: Mutant) -> tuple[str, str]:
    """Return what an explanation names a mutant by."""
    return mutant.original.id, mutant.what


def _survived(mutant: Mutant) -> Finding:
    policy = mutant.original
    return Finding(
        file=policy.file,
        line=mutant.line,
        column=mutant.column,
        length=mutant.length,
        name="surviving-mutant",
        what=f"no scenario notices that {mutant.what}: add a case that does, or explain it under `survivors:`",
        policy=policy.id,
    )


def _idle(
    workspace: Workspace,
    explanations: Iterable[tuple[Suite, Explained]],
    lived: Iterable[Mutant],
    mutants: Iterable[Mutant],
    *,
    complete: bool,
) -> Iterator[Finding]:
    """Yield a finding for each explanation of what there is not, or of what a scenario notices."""
    survived = {_name(mutant) for mutant in lived}
    tried = {_name(mutant) for mutant in mutants}
    seen: set[tuple[str, str]] = set()
    for suite, explained in explanations:
        name = (explained.policy, explained.mutant)
        if explained.policy not in workspace.policies.policies:
            fix = did_you_mean(explained.policy, workspace.policies.policies)
            what = f"there is no policy `{printable(explained.policy)}`: {fix}"
        elif name in seen:
            what = "this mutant is explained twice: remove one"
        elif name in survived or (name not in tried and not complete):
            seen.add(name)
            continue
        elif name in tried:
            what = "a scenario notices this mutant now: remove the explanation"
        else:
            what = (
                f"`{printable(explained.policy)}` has no such mutant: write what `agentguard test --mutate` says of it"
            )
        yield Finding(
            file=suite.file,
            line=explained.line,
            column=explained.column,
            name="idle-explanation",
            what=what,
            policy=explained.policy,
        )
