"""Lua scripts of `RedisSessions`. Redis runs each as one step, so nobody sees half of a change."""

import hashlib
from dataclasses import dataclass, field


@dataclass(frozen=True)
class Script:
    """A script.

    Attributes:
        text: Its text.
        digest: Its SHA-1, by which Redis finds it.
    """

    text: str
    digest: str = field(init=False)

    def __post_init__(self) -> None:
        """Make the digest."""
        digest = hashlib.sha1(self.text.encode(), usedforsecurity=False).hexdigest()
        object.__setattr__(self, "digest", digest)


_STATE = """
-- The log of a session, from the first event that a client does not know
local function state(word, known_count, known_last)
  local head = redis.call('HMGET', KEYS[1], 'count', 'size', 'whole')
  local first = tonumber(known_count)
  if first > 0 then
    local last = redis.call('LINDEX', KEYS[2], first - 1)
    if not last or redis.sha1hex(last) ~= known_last then first = 0 end
  end
  local events = redis.call('LRANGE', KEYS[2], first, -1)
  return {word, head[1], head[2], head[3], tostring(first), events}
end
local function is_unknown(id)
  local stored = redis.call('HGET', KEYS[1], 'id')
  return not stored or (#id > 12 and stored ~= id)
end
"""

FIND = Script(
    _STATE
    + """
-- KEYS: session, events. ARGV: id, known count, digest of the last known event
if is_unknown(ARGV[1]) then return {'unknown'} end
return state('found', ARGV[2], ARGV[3])
"""
)

LEASE = Script(
    _STATE
    + """
-- KEYS: session, events, lease, reply. ARGV: id, bearer, token, ms of a lease, ms of a session,
-- known count, digest of the last known event
-- The digest in the key of a reply contains the bearer; the session may have ended with it.
local reply = redis.call('GET', KEYS[4])
if reply then return {'answered', reply} end
if is_unknown(ARGV[1]) or redis.call('HGET', KEYS[1], 'bearer') ~= ARGV[2] then
  return {'unknown'}
end
if not redis.call('SET', KEYS[3], ARGV[3], 'NX', 'PX', ARGV[4]) then return {'busy'} end
redis.call('PEXPIRE', KEYS[1], ARGV[5])
redis.call('PEXPIRE', KEYS[2], ARGV[5])
return state('leased', ARGV[6], ARGV[7])
"""
)

BEGIN_SESSION = Script(
    """
-- KEYS: session, lease. ARGV: token, ms of a lease
if redis.call('EXISTS', KEYS[1]) == 1 then return {'exists', 0} end
if not redis.call('SET', KEYS[2], ARGV[1], 'NX', 'PX', ARGV[2]) then
  return {'busy', redis.call('PTTL', KEYS[2])}
end
return {'begun'}
"""
)

RENEW = Script(
    """
-- KEYS: lease, and what lives longer. ARGV: token, ms of the lease, ms of the others
if redis.call('GET', KEYS[1]) ~= ARGV[1] then return 0 end
redis.call('PEXPIRE', KEYS[1], ARGV[2])
for index = 2, #KEYS do redis.call('PEXPIRE', KEYS[index], ARGV[3]) end
return 1
"""
)

RELEASE = Script(
    """
-- KEYS: lease, and what ends with it. ARGV: token
if redis.call('GET', KEYS[1]) == ARGV[1] then redis.call('DEL', unpack(KEYS)) end
return 1
"""
)

COMMIT = Script(
    """
-- KEYS: session, events, lease, reply, running. ARGV: kind, token, version before, digest of the
-- last event before, id, bearer, count, size, whole, ms of a session, reply, ms of a reply, events
local kind = ARGV[1]
if kind ~= 'none' then
  local holder = redis.call('GET', KEYS[3])
  if holder and holder ~= ARGV[2] then return {'lost'} end
  if (redis.call('HGET', KEYS[1], 'version') or '0') ~= ARGV[3] then return {'lost'} end
  if ARGV[3] ~= '0' then
    local last = redis.call('LINDEX', KEYS[2], -1)
    if not last or redis.sha1hex(last) ~= ARGV[4] then return {'lost'} end
  end
end
if ARGV[11] ~= '' then
  if not redis.call('SET', KEYS[4], ARGV[11], 'NX', 'PX', ARGV[12]) then return {'answered'} end
end
if kind == 'end' then redis.call('DEL', KEYS[1], KEYS[2]) end
if kind == 'write' then redis.call('DEL', KEYS[2]) end
if kind == 'write' or kind == 'append' then
  for index = 13, #ARGV do redis.call('RPUSH', KEYS[2], ARGV[index]) end
  redis.call('HSET', KEYS[1], 'id', ARGV[5], 'bearer', ARGV[6], 'version',
    tostring(tonumber(ARGV[3]) + 1), 'count', ARGV[7], 'size', ARGV[8], 'whole', ARGV[9])
  redis.call('PEXPIRE', KEYS[1], ARGV[10])
  redis.call('PEXPIRE', KEYS[2], ARGV[10])
end
if kind ~= 'none' then redis.call('DEL', KEYS[3]) end
if KEYS[5] then redis.call('DEL', KEYS[5]) end
return {'done'}
"""
)

BEGIN_REQUEST = Script(
    """
-- KEYS: request, running. ARGV: digest, session id, token, ms of a lease, ms of the request
local known = redis.call('HMGET', KEYS[1], 'digest', 'session')
if known[1] and known[1] ~= ARGV[1] then return {'other', ''} end
local is_mine = redis.call('SET', KEYS[2], ARGV[3], 'NX', 'PX', ARGV[4])
local session = known[2] or ARGV[2]
if not is_mine then return {'running', session, redis.call('PTTL', KEYS[2])} end
redis.call('HSET', KEYS[1], 'digest', ARGV[1], 'session', session)
redis.call('PEXPIRE', KEYS[1], ARGV[5])
return {known[1] and 'again' or 'begun', session}
"""
)

SPEND = Script(
    """
-- KEYS: amounts by second. ARGV: amount, most. Returns the milliseconds until it can be counted
local time = redis.call('TIME')
local now = tonumber(time[1])
local slots, total = {}, 0
local stored = redis.call('HGETALL', KEYS[1])
for index = 1, #stored, 2 do
  local second, amount = tonumber(stored[index]), tonumber(stored[index + 1])
  if second + 61 <= now then
    redis.call('HDEL', KEYS[1], stored[index])
  else
    total = total + amount
    slots[#slots + 1] = {second, amount}
  end
end
local most = tonumber(ARGV[2])
if most >= 0 and total >= most then
  table.sort(slots, function(a, b) return a[1] < b[1] end)
  for _, slot in ipairs(slots) do
    total = total - slot[2]
    if total < most then
      return (slot[1] + 61 - now) * 1000 - math.floor(tonumber(time[2]) / 1000)
    end
  end
end
redis.call('HINCRBY', KEYS[1], time[1], ARGV[1])
redis.call('EXPIRE', KEYS[1], 62)
return 0
"""
)
