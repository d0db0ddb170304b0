"""What a `ValkeyStore` runs on the server: each script is one step that nobody sees half of."""

from __future__ import annotations

import json
import re
from typing import TYPE_CHECKING, Final

from agentguard.lifecycle.tally import Tally

if TYPE_CHECKING:
    from collections.abc import Iterable

    from agentguard.lifecycle.tally import Exchange, Run

NAMES: Final = ("ended", "ended-due", "news", "seq", "horizons", "runs", "runs-due", "settled", "used", "calls")
"""The keys; the hash tag keeps them together in a cluster."""

TAG: Final = "{agentguard}"


def key(name: str) -> str:
    """Return the key of *name* on the server."""
    return f"{TAG}:{name}"


KEYS: Final = tuple(key(name) for name in NAMES)

_LOCALS: Final = "\n".join(
    f"local {name.replace('-', '_')} = KEYS[{number}]" for number, name in enumerate(NAMES, start=1)
)

# What is known already can only grow, and keeps its reason. Numbers are text, and empty
# for none: Lua would round them. The news is a stream whose entries are numbered, so that
# whoever follows notices when one was trimmed before it came.
END: Final = f"""{_LOCALS}
local field, row = ARGV[1], {{ARGV[2], ARGV[3], ARGV[4], ARGV[5]}}
local function later(a, b)
  if a == '' or b == '' then return '' end
  if tonumber(a) >= tonumber(b) then return a end
  return b
end
local known = redis.call('HGET', ended, field)
if known then
  known = cjson.decode(known)
  row = {{later(known[1], row[1]), later(known[2], row[2]), known[3], known[4]}}
  if row[1] == known[1] and row[2] == known[2] then return 0 end
end
redis.call('HSET', ended, field, cjson.encode(row))
if row[2] == '' then redis.call('ZREM', ended_due, field) else redis.call('ZADD', ended_due, row[2], field) end
local number = redis.call('INCR', seq)
redis.call('XADD', news, 'MAXLEN', '~', ARGV[6], '*', 's', number, 'f', field, 'c', row[1], 'u', row[2])
if ARGV[7] then redis.call('HSETNX', settled, ARGV[7], ARGV[8]) end
return 1
"""

# How far was let go of is noted first: a clock may be set back.
PRUNE: Final = f"""{_LOCALS}
local due = redis.call('ZRANGEBYSCORE', ended_due, '-inf', ARGV[1], 'LIMIT', 0, 1000)
if #due > 0 then
  redis.call('ZADD', horizons, 'GT', redis.call('ZSCORE', ended_due, due[#due]), 'ended')
  redis.call('HDEL', ended, unpack(due))
  redis.call('ZREM', ended_due, unpack(due))
end
local over = redis.call('ZRANGEBYSCORE', runs_due, '-inf', ARGV[2], 'LIMIT', 0, 1000)
if #over > 0 then
  for _, name in ipairs({{runs, settled, used, calls}}) do redis.call('HDEL', name, unpack(over)) end
  redis.call('ZREM', runs_due, unpack(over))
end
return #due + #over
"""

RECORD: Final = f"""{_LOCALS}
if redis.call('HSETNX', runs, ARGV[1], ARGV[2]) == 0 then return 0 end
redis.call('ZADD', runs_due, ARGV[3], ARGV[1])
return 1
"""

# The first state that is final stays.
SETTLE: Final = f"""{_LOCALS}
return redis.call('HSETNX', settled, ARGV[1], ARGV[2])
"""

COUNT: Final = f"""{_LOCALS}
if redis.call('HEXISTS', runs, ARGV[1]) == 0 then return 0 end
redis.call('HSETNX', used, ARGV[1], ARGV[2])
redis.call('HINCRBY', calls, ARGV[1], ARGV[3])
return 1
"""

# A tally is a key of its own, so that each has its own end: `version:mark:text`. The mark is that of the exchange
# that wrote it. The client asks again when the connection breaks before the answer has come: what was done then is
# done, and another's exchange to the same version is not taken for it. The latest end that was named counts.
EXCHANGE: Final = """
local done = 0
for number, key in ipairs(KEYS) do
  local row = redis.call('GET', key)
  local version, mark = '0', ''
  if row then
    version, mark = string.match(row, '^(%d+):(%x+):')
    if not version then return redis.error_reply('ERR a tally cannot be read') end
  end
  if mark == ARGV[1] then done = done + 1 elseif version ~= ARGV[3 * number - 1] then return 0 end
end
if done < #KEYS then
  for number, key in ipairs(KEYS) do
    local seconds = math.max(redis.call('TTL', key), tonumber(ARGV[3 * number + 1]))
    redis.call('SET', key, ARGV[3 * number], 'EX', string.format('%d', seconds))
  end
end
return 1
"""

DAY: Final = 86_400
"""For how many seconds longer than it has to the server keeps something: clocks are set back, though not by a day."""

_LONGEST: Final = 100 * 365 * DAY
_TALLY: Final = re.compile("([1-9][0-9]*):[0-9a-f]+:(.*)", re.DOTALL)


def seconds_until(moment: float, now: float) -> int:
    """Return for how many seconds the server keeps what is valid until *moment*."""
    return int(min(max(moment - now, 0), _LONGEST)) + DAY


def tally_key(run: Run) -> str:
    """Return the key of what a run has done."""
    return key(f"tally:{json.dumps(run)}")


def tally_of(row: str | None) -> Tally:
    """Return what the server keeps of what a run has done.

    Raises:
        ValueError: It is no tally.
    """
    if row is None:
        return Tally()
    found = _TALLY.fullmatch(row)
    if found is None:
        message = "a tally cannot be read"
        raise ValueError(message)
    return Tally.of_text(int(found[1]), found[2])


def exchanging(exchanges: Iterable[Exchange], mark: str, now: float) -> tuple[list[str], list[object]]:
    """Return the keys and the arguments of `EXCHANGE`.

    Args:
        exchanges: What is to be exchanged.
        mark: Hexadecimal digits that are not used twice.
        now: Unix seconds.
    """
    keys: list[str] = []
    arguments: list[object] = [mark]
    for each in exchanges:
        keys.append(tally_key(each.run))
        row = f"{each.after.version}:{mark}:{each.after.as_text()}"
        arguments += [each.before, row, seconds_until(each.kept_until, now)]
    return keys, arguments
