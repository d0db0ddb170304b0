"""The pytest plugin: nothing until it is configured, and then each case is a test."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path
from typing import Final

import pytest

from tests.analysis.folders import RECORDS
from tests.analysis.scenarios.test_suites import WITHIN

pytest_plugins = ("pytester",)

ROOT: Final = Path(__file__).parent.parent.parent
TEST: Final = "def test_ok():\n    pass\n"
SUITE: Final = """\
entities:
  Record::r1: { sensitivity: normal, patient: Patient::p1 }
scenarios:
  - name: billing reads
    as: { agent: billing-agent, task: t }
    call: read_record
    with: { record_id: r1 }
    cases:
      - { expect: allow, by: billing-reads }
      - { name: "by Record::r1", expect: deny }
"""


@pytest.fixture
def project(pytester: pytest.Pytester) -> Path:
    """Return a project with a test, and a policy folder with one case that passes and one that fails."""
    policies = pytester.path / "policies"
    shutil.copytree(RECORDS, policies, ignore=shutil.ignore_patterns("scenarios"))
    (policies / "scenarios").mkdir()
    (policies / "scenarios" / "a.test.yaml").write_text(SUITE)
    (pytester.path / "tests").mkdir()
    (pytester.path / "tests" / "test_a.py").write_text(TEST)
    pytester.makeini("[pytest]\ntestpaths = tests\nagentguard_policies = policies\n")
    return pytester.path


def ran(pytester: pytest.Pytester, *arguments: str) -> pytest.RunResult:
    """Run pytest in the project, without a plugin that takes its time."""
    return pytester.runpytest_inprocess("-p", "no:hypothesispytest", *arguments)


def test_nothing_is_loaded_until_a_folder_is_named(tmp_path: Path) -> None:
    """Everybody who has the library installed pays for it in each run of pytest."""
    (tmp_path / "test_a.py").write_text(
        "import sys\n\ndef test_ok():\n    assert 'agentguard.pytest_plugin' in sys.modules\n"
        "    taken = {name.partition('.')[0] for name in sys.modules}\n"
        "    assert not taken & {'cedarpy', 'mcp', 'yaml', 'pydantic'}\n"
        "    assert [name for name in sys.modules if name.startswith('agentguard.')] == ['agentguard.pytest_plugin']\n"
    )
    (tmp_path / "a.test.yaml").write_text("no: scenario of ours")
    (tmp_path / "pytest.ini").write_text("[pytest]\n")
    done = subprocess.run(
        [
            sys.executable,
            "-m",
            "pytest",
            "-q",
            "-p",
            "no:anyio",
            "-p",
            "no:hypothesispytest",
            "--rootdir",
            str(tmp_path),
        ],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=False,
    )

    assert "1 passed" in done.stdout, done.stdout


def test_each_case_is_a_test(project: Path, pytester: pytest.Pytester) -> None:
    """Beside the others, with what was wanted and what came in place of a traceback."""
    result = ran(pytester, "-rA")

    result.assert_outcomes(passed=2, failed=1)
    result.stdout.fnmatch_lines(
        [
            f"scenarios/a.test.yaml:10  billing reads {WITHIN} by Record::r1",
            "wanted   deny",
            "got      allow by billing-reads",
            f"PASSED policies/scenarios/a.test.yaml::billing reads {WITHIN} billing-agent",
            f"FAILED policies/scenarios/a.test.yaml::billing reads {WITHIN} by Record:r1*",
        ]
    )
    assert "Traceback" not in result.stdout.str()


def test_case_is_chosen_like_any_test(project: Path, pytester: pytest.Pytester) -> None:
    """By its name, its file, or its node id; and what is named on the command line is all that runs."""
    ran(pytester, "-k", "billing-agent").assert_outcomes(passed=1, deselected=2)
    ran(pytester, "tests").assert_outcomes(passed=1)
    ran(pytester, "policies").assert_outcomes(passed=1, failed=1)
    ran(pytester, ".").assert_outcomes(passed=2, failed=1)
    one = f"policies/scenarios/a.test.yaml::billing reads {WITHIN} billing-agent"
    ran(pytester, one).assert_outcomes(passed=1)


def test_folder_may_be_named_on_the_command_line(project: Path, pytester: pytest.Pytester) -> None:
    """It is then run in any case, together with what else is named."""
    pytester.makeini("[pytest]\n")

    ran(pytester, "--agentguard-policies", "policies", "tests").assert_outcomes(passed=2, failed=1)
    ran(pytester, "--agentguard-policies=policies").assert_outcomes(passed=2, failed=1)
    # Of a folder that is not named, its files are not ours.
    ran(pytester).assert_outcomes(passed=1)


def test_policies_that_cannot_be_read_are_an_error(project: Path, pytester: pytest.Pytester) -> None:
    """As are scenarios with a mistake: nothing of them passes unseen."""
    (project / "policies" / "scenarios" / "b.test.yaml").write_text("scenarios: [{ nme: n }]")
    result = ran(pytester)
    (project / "policies" / "agentguard.cedarschema").unlink()
    unwritten = ran(pytester)

    result.assert_outcomes(errors=1)
    result.stdout.fnmatch_lines(["scenarios/b.test.yaml:1: a scenario has no key `nme`: did you mean `name`?"])
    unwritten.assert_outcomes(errors=2)
    unwritten.stdout.fnmatch_lines(["*write it with `agentguard schema SERVER --write *"])


def test_folder_without_scenarios_is_refused(project: Path, pytester: pytest.Pytester) -> None:
    """A run that tested nothing of it must not look as if it had."""
    shutil.rmtree(project / "policies" / "scenarios")
    result = ran(pytester)
    nowhere = ran(pytester, "--agentguard-policies", "nowhere")

    assert (result.ret, nowhere.ret) == (pytest.ExitCode.USAGE_ERROR, pytest.ExitCode.USAGE_ERROR)
    result.stderr.fnmatch_lines(
        [f"ERROR: agentguard: `{project}/policies` has no *.test.yaml: name a policy folder with scenarios"]
    )


def test_what_is_no_failure_of_a_case_keeps_its_traceback(project: Path, pytester: pytest.Pytester) -> None:
    """A fault of ours is to be seen as one."""
    pytester.makeconftest(
        "import pytest\n"
        "import agentguard.analysis.scenarios.suites as scenarios\n\n"
        "def broken(*_):\n    raise ZeroDivisionError('a fault')\n\n"
        "@pytest.hookimpl(wrapper=True)\n"
        "def pytest_runtest_call():\n"
        "    with pytest.MonkeyPatch.context() as patch:\n"
        "        patch.setattr(scenarios, 'run_case', broken)\n"
        "        return (yield)\n"
    )
    result = ran(pytester, "policies")

    result.assert_outcomes(failed=2)
    result.stdout.fnmatch_lines(["*ZeroDivisionError: a fault*"])


@pytest.mark.parametrize("place", ["build/policies", ".dist"])
def test_folder_that_pytest_passes_over_is_looked_into(place: str, project: Path, pytester: pytest.Pytester) -> None:
    """A run that left it out would look as if it had tested it; what else is there stays left out."""
    (project / place).parent.mkdir(exist_ok=True)
    (project / "policies").rename(project / place)
    (project / place / "test_b.py").write_text(TEST)
    (project / place).with_name("test_c.py").write_text(TEST if "/" in place else "")
    pytester.makeini(f"[pytest]\nnorecursedirs = sub/.dist build .*\nagentguard_policies = {place}\n")

    ran(pytester).assert_outcomes(passed=2, failed=1)
    ran(pytester, ".").assert_outcomes(passed=2, failed=1)
    ran(pytester, "tests").assert_outcomes(passed=1)
    # What is named is looked into as a whole.
    ran(pytester, "tests", "--agentguard-policies", place).assert_outcomes(passed=3, failed=1)


def test_what_is_left_out_by_name_stays_out(project: Path, pytester: pytest.Pytester) -> None:
    """As is what is named stays in."""
    (project / "build").mkdir()
    (project / "policies").rename(project / "build" / "policies")
    (project / "build" / "test_b.py").write_text(TEST)
    pytester.makeini("[pytest]\nnorecursedirs = b/ui build\nagentguard_policies = build/policies\n")

    ran(pytester, "--ignore=build").assert_outcomes(passed=1)
    ran(pytester, "--ignore-glob=*/policies").assert_outcomes(passed=1)
    ran(pytester, "build", "--agentguard-policies=build/policies").assert_outcomes(passed=2, failed=1)


def test_scenarios_of_a_folder_are_those_that_the_command_finds(project: Path, pytester: pytest.Pytester) -> None:
    """Whatever the case of their names, and in whichever folder; those of policies to come are about others."""
    (project / "policies" / "build").mkdir()
    (project / "policies" / "build" / "B.TEST.YML").write_text(SUITE)
    shutil.copytree(project / "policies", project / "policies" / "next", ignore=shutil.ignore_patterns("build"))

    ran(pytester, "policies").assert_outcomes(passed=2, failed=2)
    both = ran(pytester, "--agentguard-policies=policies/next")
    both.assert_outcomes(passed=4, failed=3)
    both.stdout.fnmatch_lines(["*next/scenarios/a.test.yaml*"])


def test_link_that_leads_back_is_not_followed_again(project: Path, pytester: pytest.Pytester) -> None:
    """Each case is collected once, and not until links end."""
    (project / "policies" / "scenarios" / "round").symlink_to(project / "policies")

    result = ran(pytester, "policies")

    result.assert_outcomes(passed=1, failed=1)
