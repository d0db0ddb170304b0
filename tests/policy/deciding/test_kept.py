from agentguard.policy.deciding.kept import Kept


def test_what_was_asked_for_longest_ago_is_dropped_first() -> None:
    """What is used stays."""
    kept: Kept[str, int] = Kept(2)
    kept.put("a", 1)
    kept.put("b", 2)

    assert kept.get("a") == 1
    assert kept.put("c", 3) == 3

    assert [kept.get(key) for key in "abc"] == [1, None, 3]


def test_what_is_heavy_drops_several_and_stays_itself() -> None:
    """It is about to be used."""
    kept: Kept[str, int] = Kept(3)
    for key in "abc":
        kept.put(key, 0)

    kept.put("d", 4, weight=9)
    assert (len(kept), kept.get("d")) == (1, 4)

    kept.put("e", 5)
    assert (len(kept), kept.get("e")) == (1, 5)


def test_a_key_counts_once() -> None:
    """Its second value takes the place of the first, with its weight."""
    kept: Kept[str, int] = Kept(3)
    kept.put("a", 1, weight=2)
    kept.put("a", 2, weight=1)
    kept.put("b", 3, weight=2)

    assert (kept.get("a"), kept.get("b")) == (2, 3)
