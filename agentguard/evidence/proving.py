"""Verify everything that is shown: several folders, and the one export of their collector."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from agentguard.evidence.chainfile import chain_files
from agentguard.evidence.elsewhere import read_export
from agentguard.evidence.heads import head_files
from agentguard.evidence.proof import Proof
from agentguard.evidence.reading import evidence_folder
from agentguard.evidence.verify import verify_folder

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from pathlib import Path


def prove(
    paths: Sequence[Path], tell: Callable[[str], None], *, key: Path | None = None, against: Path | None = None
) -> Proof | None:
    """Verify the folders among some sources.

    Args:
        paths: What is shown. A chain or an export by itself is not verified.
        tell: Is told, one line each, what of the export could not be read.
        key: The public key of the heads, kept elsewhere; each folder's own if left out.
        against: A collector's export to compare with.

    Returns:
        What was found; None if there is no folder among them.

    Raises:
        ConfigurationError: A folder holds no evidence or no key, or the export cannot be read.
    """
    # As they were named: what is in a folder of chains is looked for once, not in each step.
    folders = {evidence_folder(path): path for path in paths if path.is_dir()}
    if not folders:
        return None
    delivered = None if against is None else tuple(read_export(against, tell))
    known = [frozenset(path.stem for path in (*chain_files(folder), *head_files(folder))) for folder in folders]
    everywhere = frozenset[str]().union(*known)
    proofs: list[Proof] = []
    for folder, ids in zip(folders.values(), known, strict=True):
        # A chain that was delivered and lies in no folder is missed once: in the first.
        missed = not proofs
        report = verify_folder(
            folder,
            key=key,
            delivered=None
            if delivered is None
            else (one for one in delivered if one.chain_id in ids or (missed and one.chain_id not in everywhere)),
            against="" if against is None else str(against),
        )
        proofs.append(replace(report.proof(), notes=tuple(map(str, report.notes))))
    return Proof(
        holds=all(proof.holds for proof in proofs),
        chains=tuple(chain for proof in proofs for chain in proof.chains),
        problems=tuple(problem for proof in proofs for problem in proof.problems),
        notes=tuple(note for proof in proofs for note in proof.notes),
        unproved=tuple(str(path) for path in paths if not path.is_dir()),
        against=proofs[0].against,
    )
