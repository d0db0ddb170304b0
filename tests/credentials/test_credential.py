import copy
import dataclasses
import gc
import json
import logging
import pickle
import traceback
from collections.abc import Callable
from typing import Annotated, Any

import httpx2
import pydantic
import pydantic_core
import pytest

from agentguard.credentials.credential import NOT_A_TOKEN, Credential
from agentguard.errors import ConfigurationError
from tests import leaks

SECRET = "s3cr3t-of-the-crm"


def make_credential(**changes: Any) -> Credential:
    """Return a credential whose secret is searched for in all that gets out, with changes."""
    return Credential(**{"secret": leaks.register(SECRET), "name": "crm", "expires_at": 1_800_000_300.0, **changes})


@dataclasses.dataclass
class Held:
    """What a tool might keep one in."""

    credential: Credential


class Model(pydantic.BaseModel):
    """The same, as a model."""

    model_config = pydantic.ConfigDict(arbitrary_types_allowed=True)

    credential: Credential


def test_secret_is_revealed_on_purpose() -> None:
    """By one method, beside what may be known of it."""
    credential = make_credential()

    assert credential.reveal() == SECRET
    assert (credential.name, credential.expires_at, credential.token_type) == ("crm", 1_800_000_300.0, "Bearer")


@pytest.mark.parametrize(
    "show",
    [
        repr,
        str,
        lambda held: f"{held}",
        lambda held: f"{held!r:>40}",
        lambda held: "%s %r" % (held, held),  # noqa: UP031  the way of a log line
        lambda held: repr(Held(held)),
        lambda held: repr(Model(credential=held)),
        lambda held: str([held, {held: held}]),
        lambda held: json.dumps({"credential": held}, default=str),
        lambda held: json.dumps({"credential": held}, default=repr),
        lambda held: pydantic_core.to_json(held, fallback=str).decode(),
        lambda held: pydantic_core.to_jsonable_python(held, serialize_unknown=True),
        lambda held: str(pydantic.TypeAdapter(Any).dump_python(held)),
        lambda held: str(Model(credential=held).model_dump()),
        lambda held: Model(credential=held).model_dump_json(fallback=repr),
    ],
)
def test_secret_is_not_shown(show: Callable[[Credential], str]) -> None:
    """However it is made into text, what comes is its name."""
    shown = show(make_credential())

    assert SECRET not in shown
    assert "<credential `crm`>" in shown


@pytest.mark.parametrize(
    "take",
    [
        copy.copy,
        copy.deepcopy,
        lambda held: pickle.dumps(held, 0),
        pickle.dumps,
        lambda held: object.__reduce_ex__(held, 0),
        lambda held: object.__reduce_ex__(held, 2),
        lambda held: held.__getstate__(),
        vars,
        json.dumps,
        dataclasses.asdict,
        lambda held: dataclasses.asdict(Held(held)),
        dataclasses.replace,
        lambda held: copy.deepcopy({"credential": [held]}),
        dict,
        list,
        bytes,
        len,
        lambda held: SECRET in held,
        pydantic_core.to_json,
        pydantic_core.to_jsonable_python,
        lambda held: pydantic.TypeAdapter(Any).dump_json(held),
        lambda held: pydantic.TypeAdapter(Any).dump_python(held, mode="json"),
        lambda held: Model(credential=held).model_dump(mode="json"),
        lambda held: Model(credential=held).model_dump_json(),
        lambda held: Model(credential=held).model_copy(deep=True),
        lambda held: pydantic.TypeAdapter(type(held)),
        lambda held: setattr(held, "name", "other"),
        lambda held: delattr(held, "_reveal"),
        lambda held: type("Loud", (type(held),), {}),
    ],
)
def test_secret_is_not_taken_along(take: Callable[[Credential], object]) -> None:
    """Copies and serialised forms would be out of reach: there are none, and no exception holds it."""
    with pytest.raises(
        (TypeError, AttributeError, pydantic_core.PydanticSerializationError, pydantic.PydanticUserError)
    ) as caught:
        take(make_credential())

    assert SECRET not in "".join(traceback.format_exception(caught.value))


def test_what_walks_its_slots_finds_no_text() -> None:
    """The secret is behind a function: neither a slot nor what dumps all of them shows it."""
    credential = make_credential()

    slots = {name: getattr(credential, name) for name in Credential.__slots__}

    assert SECRET not in repr(slots)
    assert SECRET not in repr(object.__getstate__(credential))
    assert SECRET not in gc.get_referents(credential)


def test_it_is_compared_and_hashed_by_identity() -> None:
    """Neither tells whether somebody's guess is right, and no set or cache merges two of them."""
    first, second = make_credential(), make_credential()

    assert first != second
    assert first == first  # noqa: PLR0124  identity is the point
    assert len({first, second, SECRET}) == 3
    assert hash(first) != hash(SECRET)


def test_log_line_holds_its_name(caplog: pytest.LogCaptureFixture) -> None:
    """Whether it is an argument of the line or part of one."""
    credential = make_credential()

    logging.getLogger("tool").warning("calling with %s and %r", credential, {"auth": credential})

    assert [record.getMessage() for record in caplog.records if record.name == "tool"] == [
        "calling with <credential `crm`> and {'auth': <credential `crm`>}"
    ]


def test_it_authorizes_a_request() -> None:
    """As the header, and as what `httpx2` takes for ``auth=``."""
    credential = make_credential()
    seen: list[str] = []

    def answer(request: httpx2.Request) -> httpx2.Response:
        seen.append(request.headers["Authorization"])
        return httpx2.Response(200)

    with httpx2.Client(transport=httpx2.MockTransport(answer), auth=credential) as client:
        client.get("https://crm.example/")

    assert credential.authorization() == {"Authorization": f"Bearer {SECRET}"}
    assert seen == [f"Bearer {SECRET}"]


@pytest.mark.parametrize(
    ("secret", "kind"),
    [
        ('{"user": "u", "password": "p"}', NOT_A_TOKEN),
        ("plain-password", NOT_A_TOKEN),
        ("two\r\nX-Admin: yes", "Bearer"),
        ("has blanks", "Bearer"),
        ("ümlaut", "Bearer"),
    ],
)
def test_what_is_no_bearer_token_makes_no_header(secret: str, kind: str) -> None:
    """A password, and what would end the header."""
    credential = make_credential(secret=leaks.register(secret), token_type=kind)

    with pytest.raises(ConfigurationError) as caught:
        credential.authorization()

    assert str(caught.value) == "credential `crm` is no bearer token: pass what reveal() gives to whom it is for"


def test_traceback_with_local_variables_does_not_show_it() -> None:
    """Whatever is raised on the way to a header."""
    with pytest.raises(ConfigurationError) as caught:
        make_credential(token_type=NOT_A_TOKEN).authorization()

    shown = traceback.TracebackException.from_exception(caught.value, capture_locals=True)
    assert SECRET not in "".join(shown.format())


def test_pydantic_makes_no_argument_of_it() -> None:
    """A tool that was not decorated cannot be given one by its caller."""
    with pytest.raises(pydantic.PydanticUserError):

        @pydantic.validate_call
        def tool(credential: Annotated[Credential, "crm"]) -> None:
            """Do nothing."""
