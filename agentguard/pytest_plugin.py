"""Run the scenarios of a policy folder in pytest: each case of a ``*.test.yaml`` file is a test.

It does nothing until a folder is named, in the configuration or on the command line::

    [tool.pytest.ini_options]
    agentguard_policies = ["policies"]

pytest imports it into every test run of whoever has the library installed, so it loads
nothing else of it until there is a scenario to run.
"""

from __future__ import annotations

import os
from fnmatch import fnmatch
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import pytest

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from _pytest._code.code import TerminalRepr

    from agentguard.analysis.scenarios.cases import Case, CaseResult
    from agentguard.analysis.workspace import Workspace

_OPTION: Final = "agentguard_policies"
_SUFFIXES: Final = (".test.yaml", ".test.yml")
# Holds policies that are not in force yet, whose scenarios are not about those that are.
_NEXT: Final = "next"
_FOLDERS: Final = pytest.StashKey[tuple[Path, ...]]()
_NAMED: Final = pytest.StashKey[tuple[Path, ...]]()
_HIDDEN: Final = pytest.StashKey[dict[Path, set[Path]]]()
_OPENED: Final = pytest.StashKey[dict[Path, "Workspace"]]()


def pytest_addoption(parser: pytest.Parser) -> None:
    """Add the option, and its counterpart in the configuration."""
    told = "a policy folder whose scenarios are tests"
    parser.addini(_OPTION, f"agentguard: each {told}", type="paths")
    group = parser.getgroup("agentguard")
    group.addoption("--agentguard-policies", action="append", default=[], metavar="DIR", help=told)


def pytest_configure(config: pytest.Config) -> None:
    """Have the folders that were named searched for scenarios.

    Those of the configuration are part of the whole, so they are left out where somebody
    names what to run.

    Raises:
        pytest.UsageError: One has no scenario, so that nothing would be tested.
    """
    asked = [_absolute(config.invocation_params.dir / given) for given in config.getoption(_OPTION)]
    configured = [_absolute(given) for given in config.getini(_OPTION)]
    suites = {folder: list(_suites(folder)) for folder in (*asked, *configured)}
    for folder, found in suites.items():
        if not found:
            message = f"agentguard: `{folder}` has no *.test.yaml: name a policy folder with scenarios"
            raise pytest.UsageError(message)
    # A file belongs to the innermost of folders that are in each other.
    config.stash[_FOLDERS] = tuple(sorted(suites, key=lambda folder: len(folder.parts), reverse=True))
    config.stash[_OPENED] = {}
    wanted = asked if config.args_source is pytest.Config.ArgsSource.ARGS else [*asked, *configured]
    there = [_absolute(config.invocation_params.dir / given.partition("::")[0]) for given in config.args]
    config.args += [str(folder) for folder in wanted if not any(folder.is_relative_to(above) for above in there)]
    config.stash[_NAMED] = tuple(there)
    config.stash[_HIDDEN] = _hidden((*there, *wanted), [suite for found in suites.values() for suite in found], config)


def pytest_ignore_collect(collection_path: Path, config: pytest.Config) -> bool | None:
    """Look into a folder that pytest passes over, such as `build`, if it leads to scenarios, and at nothing else there.

    What somebody leaves out by name stays out. A link that leads back is not followed again.
    """
    left_out = [_absolute(Path(given)) for given in config.getoption("ignore") or ()]
    if config.getoption("ignore_glob") or collection_path in left_out:
        return None
    if collection_path.is_symlink() and any(collection_path.is_relative_to(one) for one in config.stash[_FOLDERS]):
        real = os.path.realpath(collection_path)
        if any(real == os.path.realpath(above) for above in collection_path.parents):
            return True
    for folder, ways in config.stash[_HIDDEN].items():
        if collection_path in ways:
            return False
        named = (given for given in config.stash[_NAMED] if given.is_relative_to(folder))
        if collection_path.is_relative_to(folder) and not any(collection_path.is_relative_to(one) for one in named):
            return True
    return None


def pytest_collect_file(file_path: Path, parent: pytest.Collector) -> pytest.Collector | None:
    """Collect a file of scenarios that is in one of the folders."""
    if not _is_suite(file_path.name):
        return None
    for folder in parent.config.stash[_FOLDERS]:
        if file_path.is_relative_to(folder):
            if not _is_in_force(file_path.relative_to(folder)):
                return None
            suite: SuiteFile = SuiteFile.from_parent(parent, path=file_path, policies=folder)
            return suite
    return None


def _hidden(named: Iterable[Path], suites: Iterable[Path], config: pytest.Config) -> dict[Path, set[Path]]:
    """Return what pytest passes over below what is named, and for each the ways from there to scenarios."""
    hidden: dict[Path, set[Path]] = {}
    for above in named:
        for suite in suites:
            ways = [way for way in (*suite.parents[::-1], suite) if above in way.parents]
            place = next((place for place, way in enumerate(ways[:-1]) if _is_passed_over(way, config)), None)
            if place is not None:
                hidden.setdefault(ways[place], set()).update(ways[place:])
    return hidden


def _suites(folder: Path) -> Iterator[Path]:
    seen: set[str] = set()
    for path, folders, files in os.walk(folder, followlinks=True):
        above = Path(path)
        real = os.path.realpath(path)
        if real in seen:
            folders.clear()
            continue
        seen.add(real)
        folders[:] = [name for name in folders if _is_in_force((above / name).relative_to(folder))]
        yield from (above / name for name in files if _is_suite(name))


def _is_in_force(path: Path) -> bool:
    """Whether what is in a policy folder, at a path from there, has to do with its own policies."""
    return path.parts[0] != _NEXT and not any(part.startswith(".") for part in path.parts)


def _is_passed_over(folder: Path, config: pytest.Config) -> bool:
    """Whether pytest would not look into a folder by itself."""
    patterns: list[str] = config.getini("norecursedirs")
    return any(
        fnmatch(str(folder), f"*/{pattern}") if os.sep in pattern else fnmatch(folder.name, pattern)
        for pattern in patterns
    )


def _absolute(path: Path) -> Path:
    # No link is followed: pytest names files as they were asked for.
    return Path(os.path.abspath(path))  # noqa: PTH100


def _is_suite(name: str) -> bool:
    return name.lower().endswith(_SUFFIXES) and not name.startswith(".")


class SuiteFile(pytest.File):
    """A file of scenarios."""

    def __init__(self, *, policies: Path, **arguments: Any) -> None:
        super().__init__(**arguments)
        self._policies = policies

    def collect(self) -> Iterator[pytest.Item]:
        """Yield a test for each case.

        Raises:
            pytest.Collector.CollectError: The policies or the scenarios cannot be read.
        """
        from agentguard.analysis.scenarios.suites import open_suites  # noqa: PLC0415  not before it is used
        from agentguard.analysis.workspace import open_workspace  # noqa: PLC0415  the same
        from agentguard.errors import ConfigurationError  # noqa: PLC0415  the same

        opened = self.config.stash[_OPENED]
        try:
            if self._policies not in opened:
                opened[self._policies] = open_workspace(self._policies)
            workspace = opened[self._policies]
            suites = open_suites(workspace, [self.path])
        except ConfigurationError as error:
            raise self.CollectError(str(error)) from None
        for suite in suites:
            for case in suite.cases:
                yield CaseItem.from_parent(self, name=case.name.replace("::", ":"), case=case, workspace=workspace)


class CaseItem(pytest.Item):
    """One case of a scenario."""

    def __init__(self, *, case: Case, workspace: Workspace, **arguments: Any) -> None:
        super().__init__(**arguments)
        self._case = case
        self._workspace = workspace

    def runtest(self) -> None:
        """Judge the call.

        Raises:
            ScenarioFailed: It came out otherwise than expected.
        """
        from agentguard.analysis.scenarios.suites import run_case  # noqa: PLC0415  not before it is used

        result = run_case(self._workspace, self._case)
        if not result.passed:
            raise ScenarioFailed(result, self._workspace)

    def reportinfo(self) -> tuple[Path, int, str]:
        """Return where it stands: lines count from 0 here."""
        return self.path, self._case.line - 1, self.name

    def repr_failure(self, excinfo: pytest.ExceptionInfo[BaseException], *_: Any) -> str | TerminalRepr:
        """Return what to tell of a failure: no traceback, there is no code to look at."""
        if isinstance(excinfo.value, ScenarioFailed):
            return str(excinfo.value)
        return super().repr_failure(excinfo)


class ScenarioFailed(AssertionError):  # noqa: N818  as pytest's own are called
    """A case came out otherwise than expected."""

    def __init__(self, result: CaseResult, workspace: Workspace) -> None:
        from agentguard.analysis.scenarios.failures import failure  # noqa: PLC0415  not before it is used

        told = [f"{word:<9}{line}" for word, line in failure(result, workspace.policies)]
        super().__init__("\n".join([f"{result.file}:{result.line}  {result.name}", *told]))
