"""Policies go live without a restart: noticed, read and compiled beside the calls, then taken in one step.

What a folder holds is taken if it arrived whole (`policy.keeping`), fits what the server
offers by then (`compiling`), and can be recorded (`inforce`). Else the last good version
stays, and a log line, a record and a metric say so: once for each state of the folder, for
somebody looks every few seconds. Every way to ask for a reload demands the same.
"""

from __future__ import annotations

import logging
import threading
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Final

from agentguard.errors import ConfigurationError, PolicyError, Refusal, raised
from agentguard.evidence.vocabulary import RecordKind
from agentguard.live.compiling import Terms
from agentguard.live.prompting import PAUSE_SECONDS, Asked, Prompting
from agentguard.policy.files.keeping import FixedFolder, Look, PolicyFolder, Refused

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from pathlib import Path

    from agentguard.evidence.trail import Trail
    from agentguard.evidence.vocabulary import AttributeValue
    from agentguard.limits import Limits
    from agentguard.live.compiling import Compiling
    from agentguard.live.inforce import InForce
    from agentguard.live.shadowing import Shadowing
    from agentguard.policy.deciding.entities import Loaders
    from agentguard.policy.files.source import PolicySet, PolicySource

_LOG: Final = logging.getLogger("agentguard")

LOADED: Final = "loaded"
"""The outcome of a change that was taken."""

# A folder that is broken and mended all the time fills no disk: so many refusals are told at once, then one a minute.
_AT_ONCE: Final = 60
_SECONDS_EACH: Final = 60.0

_VERSION: Final = "agentguard.policy.version"
_SHADOW_VERSION: Final = "agentguard.shadow.policy.version"


@dataclass(frozen=True, slots=True, kw_only=True)
class Reload:
    """What became of looking at a policy folder.

    Attributes:
        version: The version that is in force now.
        loaded: Whether it came into force just now.
        refused: Why what the folder holds did not: ``incomplete``, ``invalid``, ``unreadable``,
            or ``unrecorded`` if no evidence of it could be kept; empty if it is in force.
        problems: What to mend, a line each.
        shadow: The same of the policies in the shadow; None if there are none.
    """

    version: str
    loaded: bool = False
    refused: str = ""
    problems: tuple[str, ...] = ()
    shadow: Reload | None = None


@dataclass(frozen=True, slots=True)
class _Live:
    """What a guard has once it is attached."""

    compiling: Compiling
    in_force: InForce
    shadow: Shadowing
    trail: Trail


class Reloading:
    """Keeps the policies of one guard those of its folder.

    Args:
        policies: The folder of those in force.
        shadow: That of those in the shadow.
        watch: Whether changes are looked for.
        max_age: For how long what is in force may judge without being confirmed, seconds.
        label: The name for people of what was read at the start.
        clock: Gives unix seconds.
        limits: The bounds.

    Attributes:
        age_known: Gives `age`, where somebody takes care of it.
        on_sighup: Has SIGHUP looked for; see `Prompting.on_sighup`.
        stop: Ends what has policies reloaded by itself; see `Prompting.stop`.

    Raises:
        ConfigurationError: The age is no time.
    """

    def __init__(
        self,
        policies: PolicyFolder | FixedFolder,
        shadow: PolicyFolder | None,
        *,
        watch: bool,
        max_age: float | None,
        label: str | None,
        clock: Callable[[], float],
        limits: Limits,
    ) -> None:
        self._policies = policies
        self._shadow = shadow
        self._max_age = _read_age(max_age)
        self._label = label
        self._clock = clock
        self._limits = limits
        self._first: tuple[tuple[str, str], ...] = ()
        self._confirmed_at = clock()
        # What did not fit the tools: as long as both are the same, it does not fit.
        self._misfits: dict[PolicyFolder | FixedFolder, tuple[PolicySource, object, Look]] = {}
        self._told: dict[PolicyFolder | FixedFolder, tuple[Refused | None, tuple[str, ...]]] = {}
        self._to_tell, self._told_at = float(_AT_ONCE), clock()
        self._is_late = False
        self._live: _Live | None = None
        self._turn = threading.Lock()
        folders = [folder.folder for folder in (policies, shadow) if folder is not None]
        # Often enough for them to be confirmed in time.
        pause = PAUSE_SECONDS if self._max_age is None else min(PAUSE_SECONDS, self._max_age / 4)
        self._prompting = Prompting(folders, self.check, watches=watch, pause=pause, after_fork=self.after_fork)
        self.on_sighup = self._prompting.on_sighup
        self.stop = self._prompting.stop
        self.age_known = self.age if watch or max_age is not None else None

    def terms_for(self, server: str, *, loaders: Loaders, claims: Mapping[str, type]) -> Terms:
        """Return what the policies that were read are compiled with.

        Args:
            server: The server's name.
            loaders: What knows entities.
            claims: The claims that become attributes of an invocation, with their types.

        Raises:
            PolicyError: The folder has nothing for this server, or nothing that could be used.
        """
        source = self._policies.source_for(server)
        self._first = source.files
        shadow = None if self._shadow is None else self._shadow.source_for(server)
        return Terms(
            source=source, shadow=shadow, loaders=loaders, claims=claims, limits=self._limits, label=self._label
        )

    def begin(self, compiling: Compiling, in_force: InForce, shadow: Shadowing, trail: Trail) -> None:
        """Reload for what is attached from now on, whenever something asks for it."""
        self._live = _Live(compiling, in_force, shadow, trail)
        compiling.adopt, compiling.shade = in_force.adopt, shadow.shade
        in_force.confirmed = self.is_confirmed
        self._prompting.begin()

    def after_fork(self) -> None:
        """Go on in the child of a fork: whoever held a lock is not there."""
        self._turn = threading.Lock()
        if self._live is not None:
            self._live.compiling.after_fork()

    def age(self) -> float:
        """Return how long ago the policies in force were last found to be those of their folder."""
        return self._clock() - self._confirmed_at

    def is_confirmed(self) -> bool:
        """Return whether that is not too long ago."""
        # Either way: a clock that was set back would make them young for ever.
        late = self._max_age is not None and not abs(self.age()) <= self._max_age
        if late and not self._is_late:
            _LOG.error(
                "every call is denied: the policies of `%s` have not been confirmed for more than %g s",
                self._policies.folder,
                self._max_age,
            )
        self._is_late = late
        return not late

    def check(self, asked: Asked = Asked.BY_NAME) -> Reload:
        """Look at the folders, and take what may be taken, from whichever thread this is.

        Args:
            asked: Why.

        Raises:
            ConfigurationError: The guard is not attached.
        """
        live = self._live
        if live is None:
            message = "policies are reloaded once they are in force: call guard.attach(server) first"
            raise ConfigurationError(message)
        with self._turn:
            began = self._clock()

            def keep_shadow(policies: PolicySet) -> None:
                live.trail.keep(RecordKind.POLICY, versions_of(live.in_force.policies, policies))

            def renew(source: PolicySource) -> None:
                live.compiling.renew(source, self._label if source.files == self._first else None)

            done, look = self._reload(live, self._policies, renew, asked)
            if look.refused is None:
                self._confirmed_at = began
            done = replace(done, version=live.in_force.policies.version)
            if self._shadow is None:
                return done
            shaded, _ = self._reload(
                live, self._shadow, lambda source: live.compiling.renew_shadow(source, keep_shadow), asked
            )
            there = live.shadow.policies
            return replace(done, shadow=replace(shaded, version="" if there is None else there.version))

    def _reload(
        self, live: _Live, folder: PolicyFolder | FixedFolder, renew: Callable[[PolicySource], None], asked: Asked
    ) -> tuple[Reload, Look]:
        look = self._taken(live, folder, renew, asked)
        if look.refused is None:
            folder.took(look)
            self._told[folder] = (None, ())
            if look.is_new:
                live.trail.metrics.reloaded(LOADED)
                what = "are in force" if folder is self._policies else "are judged by in the shadow"
                _LOG.info("the policies of `%s` have changed, and %s", folder.folder, what)
            return Reload(version="", loaded=look.is_new), look
        state = (look.refused, look.problems)
        is_news = self._told.get(folder) != state and self._may_tell()
        if is_news:
            self._told[folder] = state
        if is_news or asked is Asked.BY_NAME:
            _LOG.error(
                "the policies of `%s` are not taken, and those before stay: %s: %s",
                folder.folder,
                look.refused,
                "\n".join(look.problems),
            )
        if is_news:
            self._keep_refused(live, folder, look.refused)
        return Reload(version="", refused=look.refused, problems=look.problems), look

    def _taken(
        self, live: _Live, folder: PolicyFolder | FixedFolder, renew: Callable[[PolicySource], None], asked: Asked
    ) -> Look:
        """Return what a folder holds, in force by then, or why it is not."""
        try:
            look = folder.look()
        except Exception as error:  # noqa: BLE001  whatever it is, it is no reason to say nothing of it
            return Look(refused=Refused.UNREADABLE, problems=(_told(error),))
        # Nothing is judged in the shadow since a tool came that it does not fit: it may have gone.
        unused = folder is self._shadow and live.shadow.policies is None
        if look.source is None or not (look.is_new or unused):
            return look
        tools = live.compiling.tools
        known = self._misfits.get(folder)
        if asked is Asked.BY_NEWS and known is not None and known[0] is look.source and known[1] is tools:
            return known[2]
        try:
            renew(look.source)
        except Refusal as refusal:
            return replace(look, refused=Refused.UNRECORDED, problems=(raised(refusal),))
        except Exception as error:  # noqa: BLE001  what nobody expected is no reason to judge by it either
            problems = error.problems if isinstance(error, PolicyError) else (_told(error),)
            refused = replace(look, refused=Refused.INVALID, problems=problems)
            self._misfits[folder] = (look.source, tools, refused)
            return refused
        return replace(look, is_new=True)

    def _may_tell(self) -> bool:
        """Return whether one more refusal is told; what may not be is news again at the next look."""
        now = self._clock()
        self._to_tell = min(_AT_ONCE, self._to_tell + max(0.0, now - self._told_at) / _SECONDS_EACH)
        self._told_at = now
        if self._to_tell < 1:
            return False
        self._to_tell -= 1
        return True

    def _keep_refused(self, live: _Live, folder: PolicyFolder | FixedFolder, why: Refused) -> None:
        live.trail.metrics.reloaded(why)
        if why is Refused.UNRECORDED:
            return
        ours = folder is self._policies
        found = versions_of(live.in_force.policies, None if ours else live.shadow.policies)
        found["agentguard.policy.refused" if ours else "agentguard.shadow.policy.refused"] = why.value
        try:
            live.trail.keep(RecordKind.POLICY, found)
        except Exception as error:  # noqa: BLE001  nothing came into force, recorded or not
            _LOG.error("that policies were refused could not be recorded: %s", raised(error))


def _read_age(given: float | None) -> float | None:
    """Return for how many seconds policies may judge unconfirmed; None for ever.

    Raises:
        ConfigurationError: It is no time.
    """
    if given is None:
        return None
    if type(given) not in {int, float} or not 0 < given < float("inf"):
        message = f"max_policy_age= wants seconds, got `{given!r}`: pass a number above 0, or None for no bound"
        raise ConfigurationError(message)
    return float(given)


def open_reloading(
    policies: Path,
    shadow: Path | None,
    *,
    watch: bool,
    max_age: float | None,
    label: str | None,
    clock: Callable[[], float],
    limits: Limits,
    read: Callable[[Path, Limits], PolicySource] | None,
) -> Reloading:
    """Read the policy folders of a guard.

    Args:
        policies: Absolute, as *shadow*.
        shadow: None for nothing in the shadow.
        watch: As for `Reloading`, likewise *max_age*, *label* and *clock*.
        max_age: So.
        label: So.
        clock: So.
        limits: The bounds.
        read: Reads the folder for a guard that judges nothing.

    Raises:
        PolicyError: A folder cannot be used.
        ConfigurationError: The age is no time.
    """
    ours: PolicyFolder | FixedFolder
    if read is None:
        ours = PolicyFolder(policies, limits)
    else:
        ours, shadow, watch = FixedFolder(policies, read(policies, limits)), None, False
    theirs = None if shadow is None else PolicyFolder(shadow, limits)
    return Reloading(ours, theirs, watch=watch, max_age=max_age, label=label, clock=clock, limits=limits)


def versions_of(policies: PolicySet, shadow: PolicySet | None) -> dict[str, AttributeValue]:
    """Return what is kept of the policies that a server starts with."""
    found: dict[str, AttributeValue] = {_VERSION: policies.version}
    if shadow is not None:
        found[_SHADOW_VERSION] = shadow.version
    return found


def _told(error: Exception) -> str:
    return str(error) if isinstance(error, ConfigurationError) else raised(error)
