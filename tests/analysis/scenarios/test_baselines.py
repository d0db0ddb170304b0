"""Baselines in a folder: their scenarios name the server's tools, and show all that the policies stop."""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from dataclasses import replace
from decimal import Decimal
from pathlib import Path
from typing import Annotated, Final

from agentguard.analysis.scenarios.baselines import Fitted, fit
from agentguard.analysis.scenarios.coverage import survivors
from agentguard.analysis.scenarios.suites import open_suites
from agentguard.analysis.workspace import open_workspace
from agentguard.cli.init import folder_files
from agentguard.cli.starter import write_new
from agentguard.policy.baselines import ALL, chosen
from agentguard.policy.conversion.values import Field, Spend, record_of
from agentguard.policy.grants import METHODS
from agentguard.policy.schemas.offered import Offered, WrittenSchema
from agentguard.policy.schemas.schema import GuardedTool, OwnType, method_tool
from tests.analysis.folders import RECORDS, records_folder
from tests.analysis.spending import spending
from tests.cli.test_init import LOADED, SERVERS, offered, works

EVERY: Final = chosen([ALL])


def server(name: str, totals: Sequence[str] = ()) -> WrittenSchema:
    """Return one of the odd servers, whose tools add to some totals."""
    tools = [replace(one, tool=replace(one.tool, totals=tuple(totals))) for one in SERVERS[name]]
    methods = [Offered(tool=method_tool(method, "odd")) for method in METHODS]
    loaders, _ = LOADED.get(name, (frozenset[str](), ""))
    return WrittenSchema(server="odd", offers=(*tools, *methods), loaders=loaders)


def records(folder: Path, name: str = "records") -> Path:
    """Return a copy of the policies of an example."""
    examples = RECORDS.parents[1]
    return Path(shutil.copytree((examples if name == "records" else examples / "tau2") / name / "policies", folder))


def shown_to_work(name: str, totals: tuple[str, ...], folder: Path) -> None:
    """Make a folder for one of the odd servers with every baseline that fits, and see that all is as it should be."""
    types = {"types/a.cedarschema": LOADED[name][1]} if name in LOADED else {}
    fitted, made = folder_files(server(name, totals), types, observe=False, baselines=EVERY)
    write_new(folder, made)

    spends = bool(totals) and any(one.tool.kind is OwnType.TOOL for one in SERVERS[name])
    assert fitted.untested == ()
    assert {"lifetime-caps", "shared-principal", "office-hours"}.isdisjoint(fitted.unfit)
    assert ("budget" in fitted.unfit) is not spends
    workspace = works(folder)
    assert survivors(workspace, open_suites(workspace)).findings() == []


def put(fitted: Fitted, folder: Path) -> None:
    """Write what was fitted."""
    write_new(folder, fitted.files)


def test_all_baselines_that_fit_a_server_are_shown_to_work(tmp_path: Path) -> None:
    """Every policy is covered, and every change of one is noticed, or explained where nobody could."""
    shown_to_work("reads alone", ("eur",), tmp_path / "policies")


def test_baselines_fit_beside_the_policies_of_a_team(tmp_path: Path) -> None:
    """Those who may call are found in the scenarios that are there; a policy of the same id keeps one out."""
    folder = records(tmp_path / "policies")

    fitted = fit(open_workspace(folder), EVERY, folder)
    put(fitted, folder)

    assert fitted.untested == ()
    assert fitted.unfit == {
        "destructive-needs-approval": "policy `destructive-needs-approval` is in 20-guardrails.cedar:64 already",
        "budget": "no tool adds to a total, with `Spend(…)` or `spends=`",
    }
    egress = fitted.files["scenarios/untrusted-to-egress.test.yaml"]
    assert '  caller: { agent: billing-agent, task: invoice-42, purpose: "monthly close" }\n' in egress
    # Two policies stop it, and the case names both.
    assert (
        "      - { as: caller-2, call: delete_record, with: { record_id: example }, run: { labels: [untrusted] }, "
        "expect: deny, reason: approval_required, by: [destructive-needs-approval, untrusted-to-egress] }\n"
    ) in egress
    workspace = works(folder)
    assert len([policy for policy in workspace.source.policies if policy.file.startswith("30-")]) == 7


def test_what_is_there_is_fitted_again_as_it_was(tmp_path: Path) -> None:
    """Its own policies are none of another file, and its own scenarios change nothing."""
    folder = records(tmp_path / "policies")
    some = chosen(["shared-principal", "untrusted-to-egress"])
    first = fit(open_workspace(folder), some, folder)
    put(first, folder)

    assert fit(open_workspace(folder), some, folder) == first


def test_what_loaders_say_of_who_calls_stands_in_the_scenarios(tmp_path: Path) -> None:
    """Without it nobody would be known, and each case would show that alone."""
    types = {"types/a.cedarschema": LOADED["callers"][1]}
    (shared,) = chosen(["shared-principal"])

    fitted, files = folder_files(server("callers"), types, observe=False, baselines=[shared])

    assert fitted.untested == ()
    assert "  Agent::example-agent: {}\n  User::alice: { level: 1 }\n" in files[shared.suite]
    # One whose task has an attribute that no such file can say is known to nobody.
    unsaid = {
        "types/a.cedarschema": 'entity User = { level: Long }; entity Task; entity Agent in [Group] = { "in": Long };'
    }
    alone, _ = folder_files(server("callers"), unsaid, observe=False, baselines=[shared])
    assert alone.untested == ("shared-principal",)
    assert [*alone.files] == [shared.file]


def test_where_no_permit_can_be_met_there_are_no_scenarios(tmp_path: Path) -> None:
    """A case that is denied before any policy is asked would show nothing."""
    folder = records_folder(tmp_path, '@id("one") permit (principal in Task::"none", action, resource);\n')

    fitted = fit(open_workspace(folder), chosen(["shared-principal"]), folder)

    assert fitted.untested == ("shared-principal",)
    assert [*fitted.files] == ["30-shared-principal.cedar"]


def test_scenarios_that_cannot_be_read_are_no_obstacle(tmp_path: Path) -> None:
    """Whoever calls is looked for elsewhere then."""
    folder = records(tmp_path / "policies")
    (folder / "scenarios" / "broken.test.yaml").write_text("scenarios: 1\n")

    fitted = fit(open_workspace(folder), chosen(["shared-principal"]), folder)

    assert "scenarios/shared-principal.test.yaml" in fitted.files


def test_what_a_line_cannot_say_of_who_calls_is_left_out(tmp_path: Path) -> None:
    """A grant, for one; scopes are said."""
    folder = records_folder(tmp_path, '@id("all") permit (principal, action, resource);')
    (folder / "scenarios").mkdir()
    (folder / "scenarios" / "own.test.yaml").write_text(
        "identities:\n"
        "  bound: { agent: billing-agent, scopes: [b, a], grant: 'permit (principal, action, resource);' }\n"
        "scenarios:\n"
        "  - { name: one, as: bound, call: search_records, with: { text: a, limit: 1 }, expect: allow }\n"
    )

    fitted = fit(open_workspace(folder), chosen(["shared-principal"]), folder)

    assert (
        "  caller: { agent: billing-agent, scopes: [a, b] }\n" in fitted.files["scenarios/shared-principal.test.yaml"]
    )


def test_what_cannot_be_called_with_samples_has_no_case() -> None:
    """An attribute of that name cannot be said in a file of scenarios, where it says what an entity is in."""
    input_ = record_of({"id": Field(str)}, where="id")
    tools = (
        offered("one", input_=input_, template="Thing::{id}"),
        offered("two", input_=input_),
        offered("three", "read-only", "open-world"),
    )
    types = {"types/a.cedarschema": 'entity Thing in [Tool] = { "in": String };'}
    written = WrittenSchema(server="odd", offers=tools, loaders=frozenset({"Thing"}))

    made = folder_files(written, types, observe=False, baselines=chosen(["shared-principal"]))

    assert "call: two" in made.files["scenarios/shared-principal.test.yaml"]
    assert "call: one" not in made.files["scenarios/shared-principal.test.yaml"]


def test_what_a_call_spends_itself_is_no_part_of_what_a_case_says(tmp_path: Path) -> None:
    """Where every tool spends, whether by an argument or by facts, a budget is still shown to the last digit."""
    amount = record_of({"amount": Field(Annotated[Decimal, Spend("eur")])}, where="pay")
    pages = record_of({"pages": Field(Annotated[int, Spend("eur")])}, where="print")
    eur = ("eur",)
    tools = (
        Offered(tool=GuardedTool(name="pay", server="odd", input=amount, totals=eur)),
        Offered(tool=GuardedTool(name="print", server="odd", input=record_of({}, where="a"), facts=pages, totals=eur)),
    )
    methods = tuple(Offered(tool=method_tool(method, "odd")) for method in METHODS)
    for place, some in enumerate((tools, tools[:1], tools[1:])):
        folder = tmp_path / str(place)
        written = WrittenSchema(server="odd", offers=(*some, *methods))
        fitted, made = folder_files(written, {}, observe=False, baselines=chosen(["budget"]))
        write_new(folder, made)

        assert (fitted.untested, dict(fitted.unfit)) == ((), {})
        # What a call spends itself is shown as well: it is counted before it is let run.
        spent = "with: { amount: 1 }" if some[0].tool.name == "pay" else "facts: { pages: 1 }"
        assert fitted.files["scenarios/budget.test.yaml"].count(spent) == 2
        assert survivors(works(folder), open_suites(open_workspace(folder))).findings() == []


def test_credentials_are_let_out_of_the_cap_on_one_tool_where_there_are_some(tmp_path: Path) -> None:
    """A policy may not name an action that its server does not have."""
    for name in ("credentials", "changes alone"):
        fitted, made = folder_files(server(name), {}, observe=False, baselines=chosen(["lifetime-caps"]))
        write_new(tmp_path / name, made)
        works(tmp_path / name)

        assert (fitted.untested, dict(fitted.unfit)) == ((), {})
        there = [text for text in fitted.files.values() if "credentials/issue" in text]
        assert len(there) == (2 if name == "credentials" else 0)


def test_where_another_policy_stops_all_that_spends_a_case_names_it(tmp_path: Path) -> None:
    """The first of several calls that come out alike is taken."""
    policies = (
        '@id("works") permit (principal, action, resource);\n'
        '@id("closed") forbid (principal, action in Action::"tools/call", resource) when { context.run.calls < 9 };'
    )

    fitted = fit(spending(tmp_path, policies), chosen(["budget"]), tmp_path)

    cases = fitted.files["scenarios/budget.test.yaml"]
    assert 'with: { account: example, amount: 1 }, run: { spent: { payments: "99.00" } }' in cases
    assert "expect: deny, by: [closed] }" in cases
    assert "expect: deny, by: [budget-payments, closed] }" in cases
