"""Every bound of the guard, as one frozen value.

A bound is a number that a caller, a token, a policy or a loader must stay under.
Passing one is a denial (or, for policies, a refusal at start-up), never a cut.
"""

from __future__ import annotations

from dataclasses import dataclass, fields


@dataclass(frozen=True, slots=True, kw_only=True)
class Limits:
    """Bounds in bytes, seconds and counts, as the field's name says.

    Raises:
        ValueError: If a bound is not a positive whole number.
    """

    token_bytes: int = 16 * 1024
    token_cache_entries: int = 10_000
    arguments_bytes: int = 256 * 1024
    string_bytes: int = 64 * 1024
    argument_nesting: int = 32
    grants_bytes: int = 4 * 1024
    policy_bytes: int = 32 * 1024
    policy_nesting: int = 100
    policy_operators: int = 500
    entities_per_request: int = 1_000
    ancestors: int = 4
    act_depth: int = 5
    loader_seconds: int = 5
    broker_seconds: int = 10
    approval_seconds: int = 300
    leeway_seconds: int = 30
    jwks_bytes: int = 512 * 1024
    staleness_seconds: int = 5
    purpose_characters: int = 256
    followed_runs: int = 10_000

    def __post_init__(self) -> None:
        for field in fields(self):
            value = getattr(self, field.name)
            if type(value) is not int or not value > 0:
                message = f"limit `{field.name}` wants a positive whole number, got `{value}`"
                raise ValueError(message)
