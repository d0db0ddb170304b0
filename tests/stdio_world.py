"""The world's server over stdio, in a process of its own, for an issuer that is elsewhere."""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path

from agentguard import Issuer
from tests.world import AUDIENCE, ISSUER, make_world


class RemoteIssuer(Issuer):
    """An issuer of which this process has the public keys alone."""

    def jwks(self) -> dict[str, object]:
        """Return the keys that the test handed over."""
        keys: dict[str, object] = json.loads(os.environ["WORLD_JWKS"])
        return keys


if __name__ == "__main__":
    world = make_world(Path(sys.argv[1]), issuer=RemoteIssuer(issuer=ISSUER, audience=AUDIENCE), agent=None)
    world.server.run("stdio")
