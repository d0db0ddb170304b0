"""The brokers that the page on credentials shows are what a type checker takes for brokers."""

import subprocess
import sys
from pathlib import Path

from tests.docs.pages import ROOT, blocks

PAGE = "docs/pages/how-to/credentials.md"
FITS = """
vault: CredentialBroker = VaultBroker("https://vault.example", role="runs", roles={"database": "readonly"})
sts: CredentialBroker = STSBroker("https://sts.example", roles={"bucket": "arn:aws:iam::123456789012:role/records"})
exchange: CredentialBroker = broker
"""


def test_code_of_the_page_is_typed(tmp_path: Path) -> None:
    """Strictly, and each of its brokers fits the protocol."""
    code = "\n\n".join(block.text for block in blocks(PAGE, "python"))
    page = tmp_path / "server.py"
    page.write_text(f"{code}\nfrom agentguard import CredentialBroker\n{FITS}", "utf-8")

    done = subprocess.run(
        [sys.executable, "-m", "mypy", "--strict", str(page)], cwd=ROOT, capture_output=True, text=True, check=False
    )

    assert done.returncode == 0, done.stdout
