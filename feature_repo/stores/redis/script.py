"""The script with which Redis itself decides whether a row may be written: nothing comes between look and write."""

from __future__ import annotations

import hashlib

ORDER_SAFE_WRITE = b"""
-- Unix time in microseconds of a serialised google.protobuf.Timestamp.
local function micros(message)
  local seconds, nanos, at = 0, 0, 1
  while at <= #message do
    local tag = string.byte(message, at)
    local value, inverse, scale, length = 0, 0, 1, 0
    local byte
    repeat
      at = at + 1
      byte = string.byte(message, at)
      value = value + (byte % 128) * scale
      inverse = inverse + (127 - byte % 128) * scale
      scale = scale * 128
      length = length + 1
    until byte < 128 or length == 9
    if byte >= 128 then
      at = at + 1
      value = -inverse - 1
    end
    at = at + 1
    if tag == 8 then seconds = value else nanos = value end
  end
  return seconds * 1000000 + math.floor(nanos / 1000)
end
-- KEYS: the entity. ARGV: time field, time, the same in microseconds, seconds to live or 0, then fields and values.
local held = redis.call('HGET', KEYS[1], ARGV[1])
if held and held ~= ARGV[2] and micros(held) > tonumber(ARGV[3]) then return 0 end
redis.call('HSET', KEYS[1], ARGV[1], ARGV[2], unpack(ARGV, 5))
if ARGV[4] ~= '0' then redis.call('EXPIRE', KEYS[1], ARGV[4]) end
return 1
"""
"""One row of one view, written unless the entity holds a newer one.

A negative number has ten groups of seven bits, of which the last is the sign; a Lua number cannot hold it as it is.
"""

DIGEST = hashlib.sha1(ORDER_SAFE_WRITE, usedforsecurity=False).hexdigest().encode()
"""Name under which Redis keeps the script."""
