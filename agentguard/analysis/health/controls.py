"""Which control of the field's lists each finding of the doctor touches.

The lists are the OWASP Top 10 for Agentic Applications (2026), ``ASI``, the OWASP Top 10 of
Non-Human Identities (2025), ``NHI``, and the tenets of zero trust in section 2.1 of NIST
SP 800-207.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Mapping

AGENTIC: Final = tuple(f"ASI{number:02}" for number in range(1, 11))
"""OWASP Top 10 for Agentic Applications (2026)."""

IDENTITIES: Final = tuple(f"NHI{number}" for number in range(1, 11))
"""OWASP Top 10 of Non-Human Identities (2025)."""

TENETS: Final = tuple(f"800-207 tenet {number}" for number in range(1, 8))
"""NIST SP 800-207, section 2.1."""

_SESSION, _DYNAMIC, _STRICT, _COLLECTS = (TENETS[number - 1] for number in (3, 4, 6, 7))

CONTROLS: Final[Mapping[str, tuple[str, ...]]] = {
    "shared-principal": ("NHI9", "ASI03", _SESSION),
    "shared-identity": ("NHI9", "ASI03", _STRICT),
    "weak-grade": ("NHI4", "ASI03", _STRICT),
    "abandoned-run": ("NHI1", "ASI10"),
    "idle-authority": ("NHI7", "ASI03", _SESSION),
    "long-authority": ("NHI7", _SESSION),
    "used-after-end": ("NHI1", "ASI10", _SESSION),
    "broken-policies": ("ASI02", _DYNAMIC),
    "stale-schema": ("ASI02", _DYNAMIC),
    "writable-policies": ("NHI5", "ASI03", _STRICT),
    "unowned-policy": ("NHI1", _DYNAMIC),
    "unowned-agent": ("NHI1", "ASI10"),
    "denials-rising": ("ASI01", "ASI10", _COLLECTS),
    "no-evidence": ("ASI10", _COLLECTS),
    "broken-evidence": ("ASI10", _COLLECTS),
    "evidence-not-lasting": ("NHI6", _COLLECTS),
    "no-exporter": ("ASI08", _COLLECTS),
    "clock-apart": ("NHI4", _STRICT),
}
"""By the name of the finding."""
