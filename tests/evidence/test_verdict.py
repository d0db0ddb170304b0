from pathlib import Path

from agentguard.evidence.verdict import lines
from agentguard.evidence.verify import verify_folder
from tests.evidence.chains import cut_behind, stopped_chain, tamper


def test_evidence_that_holds_is_said_to(tmp_path: Path) -> None:
    """A line a chain, and the verdict last."""
    path = stopped_chain(tmp_path)

    assert list(lines(verify_folder(tmp_path))) == [
        f"chain    {path.stem}  seq 1 to 15, 4 signed heads  whole",
        "the evidence holds",
    ]


def test_what_is_wrong_is_said_before_the_verdict(tmp_path: Path) -> None:
    """With what is worth a look."""
    path = stopped_chain(tmp_path)
    cut_behind(path, 1)

    told = list(lines(verify_folder(tmp_path, against="export.jsonl")))

    assert told[0] == f"chain    {path.stem}  seq 1 to 1, 1 signed head  NOT WHOLE"
    assert told[1].startswith(f"problem  chain {path.stem}, seq 1: the chain ends here")
    assert told[2].startswith(f"note     chain {path.stem}, seq 1: it ends without a stop")
    assert told[3] == "the evidence does not hold, compared with export.jsonl: 1 problem"


def test_an_empty_chain_has_no_places(tmp_path: Path) -> None:
    """Nor is it whole."""
    path = stopped_chain(tmp_path)
    tamper(path, "DELETE FROM entries")

    told = list(lines(verify_folder(tmp_path)))

    assert told[0] == f"chain    {path.stem}  no records, 0 signed heads  NOT WHOLE"
    assert told[-1].endswith("1 problem") or told[-1].endswith("problems")
