"""The FastMCP server of the records over stdio, in a process of its own, for an issuer that is elsewhere."""

from __future__ import annotations

import sys
from pathlib import Path

from tests.fast import RESTRICTED, TYPES, make_fast, records
from tests.stdio_world import RemoteIssuer
from tests.world import AUDIENCE, ISSUER

if __name__ == "__main__":
    fast = make_fast(Path(sys.argv[1]), RESTRICTED, types=TYPES, issuer=RemoteIssuer(issuer=ISSUER, audience=AUDIENCE))
    records(fast)
    fast.guard.attach(fast.server)
    fast.server.run("stdio", show_banner=False)
