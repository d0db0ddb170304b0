"""The layers of the package, read from its imports: what may know of what."""

import ast
import importlib.metadata
import re
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from functools import cache
from inspect import ismodule
from pathlib import Path
from typing import NamedTuple

import pytest

ROOT = Path(__file__).parent.parent
PACKAGE = ROOT / "agentguard"

# The longest name that fits a module counts. A module imports from rows above its own, or
# from its own package in the same row.
ROWS: tuple[tuple[str, ...], ...] = (
    ("errors", "limits", "model", "policy.problem"),
    (
        "steps.denial",
        "evidence.record",
        "evidence.vocabulary",
        "identity.assertion",
        "identity.dialects",
        "identity.form",
        "identity.issuers",
        "identity.jwk",
        "identity.options",
        "identity.token",
        "lifecycle.origin",
        "lifecycle.tally",
        "policy.conversion.composites",
        "policy.grants",
        "policy.conversion.jsonschema",
        "policy.text.lexer",
        "policy.text.literals",
        "policy.conversion.scalars",
        "policy.conversion.shapes",
        "policy.deciding.slicing",
        "policy.conversion.values",
    ),
    ("approval", "request"),
    ("host.atend", "host.cancelled", "host.private", "guarding.spending", "host.unkept", "host.unreached"),
    ("evidence", "identity", "lifecycle", "policy"),
    ("credentials",),
    ("steps.call", "live.compiling", "evidence.ends", "evidence.followed", "evidence.runs", "live.watching"),
    (
        "steps.attending",
        "live.inforce",
        "live.prompting",
        "steps.running",
        "live.shadowing",
        "steps.stepping",
        "steps.tallying",
    ),
    ("steps.denying", "steps.judging", "live.reloading"),
    ("steps.asking", "steps.counting", "steps.previewing"),
    ("approvers", "enforce", "state"),
    ("adapters", "testing"),
    (
        "guarding.guarded",
        "lifecycle.app",
        "lifecycle.asked",
        "lifecycle.clients",
        "lifecycle.exchange",
        "lifecycle.inquiry",
        "lifecycle.issuer",
        "lifecycle.lasting",
        "lifecycle.local",
        "lifecycle.runs",
        "lifecycle.signing",
        "guarding.raw",
    ),
    ("guarding.decorating", "guarding.doing", "guarding.gate", "guarding.rulebook", "guarding.trust"),
    ("adapters.changes", "adapters.listing", "adapters.mcp", "adapters.reading", "adapters.serving"),
    ("guarding.attaching", "guarding.offering"),
    ("guard",),
    ("public",),
    ("analysis",),
    ("cli", "pytest_plugin"),
)
PURE = 2

# Where each library may be imported, by module prefix.
ONLY_IN: dict[str, tuple[str, ...]] = {
    "cedarpy": ("policy",),
    "fastmcp": (
        "adapters.fastmcp",
        "adapters.fastmcp_answers",
        "adapters.fastmcp_auth",
        "adapters.fastmcp_changes",
        "adapters.fastmcp_gate",
        "adapters.fastmcp_injected",
        "adapters.fastmcp_leaf",
    ),
    "google": ("evidence.delivery.otlp_http",),
    "grpc": ("evidence.delivery.otlp_grpc",),
    "jwt": ("identity", "lifecycle.signing"),
    "mcp": ("adapters",),
    "mcp_types": ("adapters",),
    "opentelemetry": ("evidence",),
    "redis": ("lifecycle.valkey",),
    "rich": ("cli",),
    "starlette": ("lifecycle.app",),
    "typer": ("cli",),
    "uvicorn": ("cli",),
    "watchfiles": ("live.watching",),
    "yaml": ("analysis",),
}

# What reaches the world outside; the pure rows must not even be able to.
WORLD = {
    "asyncio", "anyio", "glob", "httpx2", "io", "multiprocessing", "os", "pathlib", "random", "requests", "secrets",
    "shutil", "signal", "socket", "subprocess", "tempfile", "threading", "time", "urllib",
}  # fmt: skip

# Arguments may be paths: the mapping knows the type and never opens one.
TYPES_OF_ARGUMENTS = {("policy.conversion.shapes", "pathlib")}


class Import(NamedTuple):
    """One import: in which module, of what, on which line, and whether for types alone."""

    module: str
    target: str
    line: int
    types_only: bool


def module_name(path: Path) -> str:
    """Return a module's name below the package; empty for the package itself."""
    parts = path.relative_to(PACKAGE).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


@cache
def modules() -> dict[str, ast.Module]:
    """Return the tree of every module."""
    return {module_name(path): ast.parse(path.read_text("utf-8")) for path in sorted(PACKAGE.rglob("*.py"))}


def within(module: str, prefix: str) -> bool:
    """Return whether *module* is *prefix* or lies below it."""
    return module == prefix or module.startswith(f"{prefix}.")


@cache
def row_of(module: str) -> int | None:
    """Return the module's row, or None if the table does not know it."""
    fits = [(len(p), number) for number, prefixes in enumerate(ROWS) for p in prefixes if within(module, p)]
    return max(fits)[1] if fits else None


def package_of(module: str) -> str:
    """Return the inner package that a module lies in; a module beside them is its own."""
    return module.partition(".")[0]


def imports_of(module: str, tree: ast.Module) -> Iterator[Import]:
    """Yield what *tree* imports, wherever it does."""
    for_types = {
        id(inner)
        for node in ast.walk(tree)
        if isinstance(node, ast.If) and isinstance(node.test, ast.Name) and node.test.id == "TYPE_CHECKING"
        for inner in ast.walk(node)
    }
    for node in ast.walk(tree):
        types_only = id(node) in for_types
        if isinstance(node, ast.Import):
            for alias in node.names:
                yield Import(module, alias.name, node.lineno, types_only)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{module}:{node.lineno}: write the whole name"
            assert node.module is not None
            for alias in node.names:
                yield Import(module, f"{node.module}.{alias.name}", node.lineno, types_only)


@cache
def every_import() -> list[Import]:
    """Return every import of the package."""
    return [found for module, tree in modules().items() for found in imports_of(module, tree)]


def own_target(found: Import, known: dict[str, ast.Module]) -> str | None:
    """Return the module of ours that is imported, or None if it is none of ours."""
    if found.target.partition(".")[0] != "agentguard":
        return None
    target = found.target.removeprefix("agentguard").removeprefix(".")
    # `from agentguard.model import Decision` names the module one part earlier.
    return target if target in known else target.rpartition(".")[0]


def test_every_module_has_a_row() -> None:
    """A new module is placed on purpose."""
    missing = [module for module in modules() if module not in {"", *packages()} and row_of(module) is None]

    assert missing == []


def packages() -> set[str]:
    """Return the inner packages, whose `__init__` is empty."""
    return {module_name(path) for path in PACKAGE.rglob("__init__.py")} - {""}


def test_an_inner_package_holds_nothing() -> None:
    """Importing one module of a package takes none of its neighbours along."""
    known = modules()
    for package in packages():
        body = [node for node in known[package].body if not isinstance(node, ast.Expr)]

        assert body == [], package


def test_each_module_imports_from_rows_above_alone() -> None:
    """Or from its own package, in the same row."""
    known = modules()
    wrong: list[str] = []
    for found in every_import():
        target = own_target(found, known)
        if target is None or found.module == "":
            continue
        here, there = row_of(found.module), row_of(target)
        assert here is not None, found
        assert there is not None, found
        if not (there < here or (there == here and (here == 0 or package_of(target) == package_of(found.module)))):
            wrong.append(f"{found.module}:{found.line}: row {here} imports {target} of row {there}")

    assert wrong == []


def test_each_library_is_imported_where_it_belongs_alone() -> None:
    """What a library's update can break lies in one place."""
    wrong = [
        f"{found.module}:{found.line}: {found.target}"
        for found in every_import()
        for library, places in ONLY_IN.items()
        if within(found.target, library)
        and not any(within(found.module, place) for place in places)
        # The signatures that developers see name what they pass in; nothing is loaded.
        and not (found.types_only and found.module in {"guard", "lifecycle.issuer"})
    ]

    assert wrong == []


def test_the_pure_rows_cannot_reach_the_world() -> None:
    """No file, clock, network or environment: a recorded request replays to the same answer."""
    wrong = [
        f"{found.module}:{found.line}: {found.target}"
        for found in every_import()
        if not found.types_only
        and row_of(found.module) in range(PURE + 1)
        and (library := found.target.partition(".")[0]) in WORLD
        and (found.module, library) not in TYPES_OF_ARGUMENTS
    ]

    assert wrong == []


def test_nothing_prints() -> None:
    """A stdio server's standard output belongs to the protocol; only commands may write to it."""
    wrong: list[str] = []
    for module, tree in modules().items():
        if within(module, "cli"):
            continue
        for node in ast.walk(tree):
            last = node.id if isinstance(node, ast.Name) else node.attr if isinstance(node, ast.Attribute) else ""
            if last not in {"print", "stdout", "__stdout__"}:
                continue
            name = ast.unparse(node)
            if name in {"print", "sys.stdout", "sys.__stdout__"}:
                wrong.append(f"{module}:{node.lineno}: {name}")  # type: ignore[attr-defined]

    assert wrong == []


def test_no_global_provider_is_configured() -> None:
    """Where spans and metrics go is the process's decision, not a library's."""
    setters = re.compile(r"set_(tracer|meter|logger)_provider|set_global_textmap|basicConfig|dictConfig")
    wrong = [
        f"{module}:{node.lineno}"
        for module, tree in modules().items()
        for node in ast.walk(tree)
        if isinstance(node, ast.Name | ast.Attribute)
        and setters.fullmatch(node.id if isinstance(node, ast.Name) else node.attr)
    ]

    assert wrong == []


def test_the_sdk_of_opentelemetry_is_not_imported() -> None:
    """The library speaks to the API; an exporter is somebody's choice, and lies in an extra."""
    wrong = [
        f"{found.module}:{found.line}"
        for found in every_import()
        if found.target.startswith(("opentelemetry.sdk", "opentelemetry.exporter"))
        # The latter is loaded only where somebody has the SDK already, to look through its spans.
        and not (within(found.module, "evidence.delivery.otlp_wire") or within(found.module, "evidence.contain"))
    ]

    assert wrong == []


def optional_distributions() -> set[str]:
    """Return what the extras for users install."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"]
    extras = project["optional-dependencies"]
    wanted = [requirement for extra in ("valkey", "otlp", "otlp-grpc", "fastmcp") for requirement in extras[extra]]
    return {re.split(r"[\[<>=~! ]", requirement)[0] for requirement in wanted}


@pytest.fixture(scope="module")
def after_import() -> set[str]:
    """Return the names of all modules that a server's import of `agentguard` loads, in a process of its own."""
    script = (
        "import sys; from agentguard import Guard; from opentelemetry import trace, metrics;"
        "assert type(trace._TRACER_PROVIDER) is type(None), trace._TRACER_PROVIDER;"
        "assert type(metrics._internal._METER_PROVIDER) is type(None);"
        "sys.stderr.write('\\n'.join(sys.modules))"
    )
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", script], cwd=ROOT, capture_output=True, text=True, check=True
    )
    assert done.stdout == ""
    return set(done.stderr.splitlines())


def test_importing_takes_no_optional_dependency_along(after_import: set[str]) -> None:
    """An extra that happens to be installed stays unloaded until somebody asks for it."""
    optional = optional_distributions()
    assert optional == {"redis", "opentelemetry-proto", "grpcio", "fastmcp"}

    taken = {
        name
        for name in after_import
        if name.partition(".")[0] in {"fastmcp", "grpc", "redis"} or name.startswith("opentelemetry.proto")
    }

    assert taken == set()


def test_importing_loads_neither_the_command_line_nor_an_sdk(after_import: set[str]) -> None:
    """A server pays for what it uses."""
    assert not {
        name for name in after_import if name.startswith(("agentguard.cli", "opentelemetry.sdk", "rich.", "typer"))
    }


def test_every_public_name_is_there() -> None:
    """`public` names what is public, and holds nothing else; ruff keeps the names in order."""
    import agentguard
    from agentguard import public

    held = {name for name, value in vars(public).items() if not name.startswith("_") and not ismodule(value)}

    assert held == set(public.__all__) == set(dir(agentguard))
    assert all(getattr(agentguard, name) is getattr(public, name) for name in public.__all__)


def test_public_names_are_imported_when_one_is_asked_for() -> None:
    """What reads policies needs no MCP server."""
    script = (
        "import sys, agentguard.errors; assert not hasattr(agentguard, '__version__');"
        "assert not {'agentguard.public', 'mcp'} & set(sys.modules)"
    )
    subprocess.run([sys.executable, "-W", "error", "-c", script], cwd=ROOT, check=True)


def test_public_name_that_cannot_be_imported_is_told_where_it_is_asked_for(monkeypatch: pytest.MonkeyPatch) -> None:
    """A mistyped one, and one whose libraries are missing."""
    with pytest.raises(ImportError, match="cannot import name 'Gard' from 'agentguard'"):
        from agentguard import Gard  # type: ignore[attr-defined]  # noqa: F401
    monkeypatch.setitem(sys.modules, "agentguard.public", None)
    with pytest.raises(ModuleNotFoundError, match=r"agentguard\.public"):
        from agentguard import Guard  # noqa: F401


def test_the_distribution_has_the_package_name() -> None:
    """What one installs is what one imports."""
    assert importlib.metadata.metadata("agentguard")["Name"] == "agentguard"
