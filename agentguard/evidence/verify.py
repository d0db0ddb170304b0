"""Whether the evidence holds: chains, signed heads, order, clock, and what was delivered elsewhere.

A *problem* is something that cannot be if nobody touched the evidence. A *note* is what a
kill, a clock that was set, or a tamperer may have caused: nothing is proved by it. What
has the server's key can write anything anew; only a copy that was delivered elsewhere
tells, and `against` takes one.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from agentguard.errors import ConfigurationError
from agentguard.evidence.chaincheck import ChainCheck
from agentguard.evidence.chainfile import SUFFIX, chain_files
from agentguard.evidence.claim import unpruned
from agentguard.evidence.elsewhere import Elsewhere, read_export
from agentguard.evidence.heads import KEY, PUBLIC_KEY, PublicHeadKey, head_files
from agentguard.evidence.order import Order
from agentguard.evidence.proof import Found, Proof
from agentguard.evidence.reading import evidence_folder

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence
    from pathlib import Path

    from agentguard.evidence.elsewhere import Delivered
    from agentguard.evidence.proof import Finding, ProvenChain


@dataclass(frozen=True, slots=True, kw_only=True)
class Report:
    """What a verification found.

    Attributes:
        chains: What was verified.
        problems: What is wrong; the evidence holds if there is nothing.
        notes: What proves nothing and is worth a look.
        against: What was compared with; empty for nothing.
    """

    chains: tuple[ProvenChain, ...]
    problems: tuple[Finding, ...]
    notes: tuple[Finding, ...]
    against: str = ""

    @property
    def holds(self) -> bool:
        """Whether nothing is wrong."""
        return not self.problems

    def proof(self) -> Proof:
        """Return it as a page shows it."""
        return Proof(
            holds=self.holds,
            chains=self.chains,
            problems=tuple(map(str, self.problems)),
            against=self.against,
        )


def verify_folder(
    folder: Path, *, key: Path | None = None, delivered: Iterable[Delivered] | None = None, against: str = ""
) -> Report:
    """Verify every chain of a folder.

    Args:
        folder: The state folder, or the folder of the chains in it.
        key: The public key of the heads, as a JWK that was kept elsewhere. The folder's
            own if left out, which proves less: whoever can write there can exchange it.
        delivered: What another place has of these chains, as `read_export` reads it.
        against: What that place is called.

    Raises:
        ConfigurationError: There is no evidence, or no key.
    """
    folder = evidence_folder(folder)
    files = chain_files(folder)
    gone = [path for path in head_files(folder) if not path.with_suffix(SUFFIX).exists()]
    if not files and not gone:
        _require_evidence(folder, compared=delivered is not None)
    public = PublicHeadKey.read(key or folder / PUBLIC_KEY)
    found = Found()
    elsewhere = None if delivered is None else Elsewhere(delivered, found)
    order = Order(found.problem, found.note)
    chains = [ChainCheck(path, public, found) for path in files]
    with unpruned(folder):
        for chain in chains:
            for entry in chain.entries():
                order.see(entry)
                if elsewhere is not None:
                    elsewhere.see(entry)
            if elsewhere is not None:
                elsewhere.end(chain.id, pruned=chain.begins_after)
    for path in gone:
        found.problem(path.stem, 0, f"the whole chain is gone: `{path.name}` lies there without it")
        if elsewhere is not None:
            elsewhere.forget(path.stem)
    order.end()
    if elsewhere is not None:
        elsewhere.end_all()
    wrong = {problem.chain_id for problem in found.problems}
    return Report(
        chains=tuple(
            chain.proven(
                whole=chain.id not in wrong,
                compared=None if elsewhere is None else elsewhere.compared.get(chain.id, (0, 0)),
            )
            for chain in chains
        ),
        problems=tuple(found.problems),
        notes=tuple(found.notes),
        against=against,
    )


def proven_chain(path: Path) -> ProvenChain:
    """Verify one chain by itself, with the key that lies beside it: see `verify_folder` for all that there is to ask.

    Args:
        path: Its file.

    Raises:
        ConfigurationError: There is no key.
    """
    found = Found()
    chain = ChainCheck(path, PublicHeadKey.read(path.parent / PUBLIC_KEY), found)
    with unpruned(path.parent):
        for _ in chain.entries():
            pass
    return chain.proven(whole=not found.problems, compared=None)


def _require_evidence(folder: Path, *, compared: bool) -> None:
    """Pass only if a folder without a chain is one that had some, and something can tell of them."""
    keys = [name for name in (PUBLIC_KEY, KEY) if (folder / name).exists()]
    if not keys:
        message = f"`{folder}` holds no evidence: name the folder that was given as `state=`"
        raise ConfigurationError(message)
    if not compared:
        message = (
            f"`{folder}` holds no chain, though `{keys[0]}` lies there: "
            "its chains were removed, or none was begun: compare with an export by --against"
        )
        raise ConfigurationError(message)


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
    for path in paths:
        if not path.exists():
            message = f"`{path}` is not there: name the folder that was given as `state=`"
            raise ConfigurationError(message)
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
        where = f"{folder}: " if len(folders) > 1 else ""
        proofs.append(
            replace(
                report.proof(),
                problems=tuple(f"{where}{problem}" for problem in report.problems),
                notes=tuple(f"{where}{note}" for note in report.notes),
            )
        )
    twice = _twice(tuple(folders.values()), proofs)
    return Proof(
        holds=all(proof.holds for proof in proofs) and not twice,
        chains=tuple(chain for proof in proofs for chain in proof.chains),
        problems=(*twice, *(problem for proof in proofs for problem in proof.problems)),
        notes=tuple(note for proof in proofs for note in proof.notes),
        unproved=tuple(str(path) for path in paths if not path.is_dir()),
        against=proofs[0].against,
    )


def _twice(folders: Sequence[Path], proofs: Sequence[Proof]) -> tuple[str, ...]:
    """Return what is wrong with chains that lie in two folders: at most one of them is the server's."""
    problems: list[str] = []
    first: dict[str, tuple[Path, int]] = {}
    for folder, proof in zip(folders, proofs, strict=True):
        for chain in proof.chains:
            other, end = first.setdefault(chain.chain_id, (folder, chain.last_seq))
            if other is not folder:
                problems.append(
                    f"chain {chain.chain_id}: it lies in `{other}`, where it ends at seq {end}, "
                    f"and in `{folder}`, where it ends at seq {chain.last_seq}: one is a copy"
                )
    return tuple(problems)
