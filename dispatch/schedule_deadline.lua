-- Put windows on the clock, of open offers and of time limits; what is there already keeps its place and its claim.
--
-- KEYS[1]  zset  member: window id, score: when it rings (or end of a claim), ms since epoch
-- KEYS[2..] string  one per window, expiring when it rings; value: that instant
-- ARGV     window id, when it rings in ms, for each of KEYS[2..]
-- Returns  how many were new
local found = redis.call('TYPE', KEYS[1]).ok
-- Somebody else's doing: without it nothing is lost, as SQL knows all deadlines.
if found ~= 'zset' and found ~= 'none' then redis.call('DEL', KEYS[1]) end
local added = 0
for i = 2, #KEYS do
  local id, deadline = ARGV[2 * i - 3], ARGV[2 * i - 2]
  -- NX: restoring from SQL must not cut short a claim that a node is working on.
  if redis.call('ZADD', KEYS[1], 'NX', deadline, id) == 1 then
    added = added + 1
    redis.call('SET', KEYS[i], deadline, 'PXAT', deadline)
  end
end
return added
