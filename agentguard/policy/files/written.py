"""A server's schema as one file that people, editors and commands read.

`write_schema` makes ``agentguard.cedarschema`` from the guarded tools; `read_schema` makes
the very same tools from it, so that a folder of policies is compiled as the guard compiles
it, down to the version, where there is no Python of the server. The guard itself never
reads the file. What Cedar's schema cannot say stands in annotations, which Cedar allows.
"""

from __future__ import annotations

import re
from collections import Counter
from typing import TYPE_CHECKING, Final

from agentguard.errors import ConfigurationError
from agentguard.limits import Limits
from agentguard.model import printable
from agentguard.policy.files.folder import WRITTEN as FILE
from agentguard.policy.files.reread import read_schema
from agentguard.policy.files.source import schema_of
from agentguard.policy.schemas.layout import identifier, literal, type_text
from agentguard.policy.schemas.offered import Offered, WrittenSchema
from agentguard.policy.schemas.schema import OwnType, context_types, totals_of
from agentguard.policy.schemas.types import CedarType, Member, read_types
from agentguard.policy.text.annotations import COMMA, joined
from agentguard.policy.text.lexer import Kind, LexError, tokens

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping

    from agentguard.policy.conversion.values import Shape
    from agentguard.policy.files.source import PolicySource
    from agentguard.policy.schemas.schema import SchemaTexts
    from agentguard.policy.schemas.types import EntityDecl, SchemaTypes

__all__ = ["FILE", "SERVER", "Offered", "WrittenSchema", "is_shown", "named_server", "read_schema", "write_schema"]

SERVER: Final = "SERVER"
"""What stands for the server where nobody knows how commands name it."""

_LIMITS: Final = Limits()
# A name that is shown as a part of a command to type: nothing that a shell would read otherwise, no place of one
# machine, and no option.
_SERVER: Final = r"(?![-/])[\w./:-]+"
_BY: Final = re.compile(rf"// Written by `agentguard schema ({_SERVER}) --write FOLDER`:", re.ASCII)
_RULE: Final = 80
_ACTORS: Final = ("Group", "User", "Agent", "Task", "Invocation")
_SHARED: Final = {"local": "Local", "run": "Run", "approval": "Approval"}


def _every(totals: Iterable[str]) -> Mapping[str, Member]:
    """Return what every context has, at a server with these totals."""
    members = ", ".join(f"{name}: {type_}" for name, type_ in context_types(totals).items())
    return read_types(f"entity User; entity Call = {{ {members} }};").entities["Call"].attributes.members


def is_shown(named: str) -> bool:
    """Return whether a name of a server can stand in the file, for others to type."""
    return re.fullmatch(_SERVER, named, re.ASCII) is not None


def named_server(text: str) -> str:
    """Return how commands name the server that a file was written for; `SERVER` if the file does not say."""
    found = _BY.search("\n".join(text.split("\n", 3)[:3]))
    return SERVER if found is None else found[1]


def write_schema(written: WrittenSchema, source: PolicySource, limits: Limits = _LIMITS, *, named: str = SERVER) -> str:
    """Return the file's text: one complete Cedar schema, the same for the same server and folder.

    Args:
        written: The server.
        source: The folder, for the team's own types.
        limits: ``policy_nesting`` bounds types.
        named: How commands name the server, for whoever has to write the file again.

    Raises:
        PolicyError: If the folder's types do not fit the server.
        ConfigurationError: If the tools or claims themselves cannot be.
    """
    texts = schema_of(source, written.tools, loaders=written.loaders, claims=written.claims, limits=limits)
    try:
        types = read_types(texts.full, limits)
    except LexError as error:
        message = f"what the server offers cannot be written: {error.what}"
        raise ConfigurationError(message) from None
    return _Writer(written, source, texts, types, named).text()


class _Writer:
    """Writes one schema, section by section."""

    def __init__(
        self, written: WrittenSchema, source: PolicySource, texts: SchemaTexts, types: SchemaTypes, named: str
    ) -> None:
        self._written = written
        self._source = source
        self._texts = texts
        self._types = types
        self._named = named if is_shown(named) else SERVER
        # A common type must not have the name of anything that the folder's types say.
        self._taken = {
            token.text for fragment in source.fragments for token in tokens(fragment.text) if token.kind is Kind.NAME
        }
        self._taken.update(part for name in texts.entities for part in name.split("::"))
        self._shared: dict[str, str] = {}

    def text(self) -> str:
        parts = [self._header()]
        if self._source.fragments:
            parts.append(_rule("the team's own types, from types/"))
            parts += (f"// {fragment.path}\n{fragment.text.strip()}\n" for fragment in self._source.fragments)
        generated = {
            name: self._types.entities[name] for name, entity in self._texts.entities.items() if not entity.line
        }
        actors = [name for name in _ACTORS if name in generated]
        parts += [_rule("who acts"), *(self._entity(generated[name]) for name in actors), ""]
        parts += [_rule("what is acted on")]
        parts += [self._entity(entity) for name, entity in generated.items() if name not in actors]
        parts += ["", _rule("what every call knows"), *self._context(), ""]
        parts += [_rule("what can be done"), self._groups()]
        parts += (f"\n{self._action(offered)}" for offered in self._written.offers)
        return "\n".join(parts) + "\n"

    def _header(self) -> str:
        kinds = Counter(offered.tool.kind for offered in self._written.offers)
        counted = [
            f"{count} {kind.word}{'' if count == 1 else 's'}"
            for kind in OwnType
            if (count := kinds[kind]) and kind is not OwnType.SERVER
        ]
        return (
            f"// What policies can say about server {printable(literal(self._written.server))}: "
            f"{', '.join(counted) or 'it has no tool yet'}.\n"
            f"// Written by `agentguard schema {self._named} --write FOLDER`: write it again when the tools change.\n"
            "// For editors, and for the commands that check policies without the server. The guard never\n"
            "// reads it: it makes its own from the tools.\n"
        )

    def _entity(self, entity: EntityDecl) -> str:
        namespace, _, name = entity.name.rpartition("::")
        above = f" in [{', '.join(entity.parents)}]" if entity.parents else ""
        head = f"entity {name}{above}"
        members = entity.attributes.members
        text = f"{head};" if not members else type_text(entity.attributes, f"{head} = ", ";")
        return f"namespace {namespace} {{ {text} }}" if namespace else text

    def _context(self) -> Iterator[str]:
        """Declare the types that every context shares."""
        every = _every(totals_of(self._written.tools))
        for key, wanted in _SHARED.items():
            self._shared[key] = name = identifier(wanted, "", self._taken)
            yield type_text(every[key].type, f"type {name} = ", ";")

    def _groups(self) -> str:
        groups = [name for name, one in self._types.actions.items() if one.context is None]
        lines = [f"@server({literal(self._written.server)})"]
        if self._written.loaders:
            lines.append(f"@loaders({literal(joined(sorted(self._written.loaders), COMMA))})")
        lines.append(f"action {', '.join(map(literal, groups))};")
        return "\n".join(lines)

    def _action(self, offered: Offered) -> str:
        tool = offered.tool
        action = self._types.actions[tool.name]
        context = dict(action.context.members) if action.context is not None else {}
        lines: list[str] = []
        for key, shape in (("input", tool.input), ("facts", tool.facts)):
            if shape is not None:
                name = identifier(tool.name, key.capitalize(), self._taken)
                lines.append(type_text(type_of(shape), f"type {name} = ", ";"))
                context[key] = Member(type=CedarType(name=name))
        for key, name in self._shared.items():
            context[key] = Member(type=CedarType(name=name), required=context[key].required)
        groups = f" in [{', '.join(f'Action::{literal(group)}' for group in action.groups)}]" if action.groups else ""
        lines += [
            *self._annotations(offered),
            f"action {literal(tool.name)}{groups} appliesTo {{",
            f"  principal: {action.principals[0]},",
            f"  resource: {action.resources[0]},",
            type_text(CedarType(name="Record", members=context), "  context: ", ","),
            "};",
        ]
        return "\n".join(lines)

    def _annotations(self, offered: Offered) -> Iterator[str]:
        if offered.resource is not None:
            yield f"@resource({literal(str(offered.resource))})"
        if offered.tool.unseen:
            yield f"@unseen({literal(joined(offered.tool.unseen, COMMA))})"
        if offered.tool.totals:
            yield f"@totals({literal(joined(offered.tool.totals, COMMA))})"
        if offered.tool.labels:
            yield f"@labels({literal(joined(sorted(offered.tool.labels), COMMA))})"
        if not offered.annotated:
            yield '@unannotated("")'


def type_of(shape: Shape) -> CedarType:
    """Return the type that values of *shape* have."""
    if shape.element is not None:
        return CedarType(name="Set", element=type_of(shape.element))
    if shape.cedar.startswith("{"):
        members = {part.name: Member(type=type_of(part.shape), required=not part.optional) for part in shape.parts}
        return CedarType(name="Record", members=members)
    one_of = tuple(str(member).lower() if isinstance(member, bool) else str(member) for member in shape.members)
    return CedarType(name=shape.cedar, one_of=one_of, spends=shape.spends)


def _rule(title: str) -> str:
    return f"// ── {title} ".ljust(_RULE, "─")
