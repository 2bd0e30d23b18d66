-- Begin one attempt to sign in, unless too many have failed; all subjects of the attempt are judged together.
--
-- KEYS[1], KEYS[2]  zset  per subject: failed attempts, score: when, ms since epoch · attempts under way, score: until when
-- KEYS[3], KEYS[4]  …     the same for the next subject
-- ARGV[1]  id of this attempt   ARGV[2]  window, ms   ARGV[3]  an attempt takes at most, ms
-- ARGV[4]  failures allowed of the first subject   ARGV[5]  … of the next one
-- Returns  0: go on, it is counted as under way   -1: ask again soon, those under way might use up what is left
--          n > 0: refused for n ms
local time = redis.call('TIME')
local now = time[1] * 1000 + math.floor(time[2] / 1000)
local id, window, longest = ARGV[1], tonumber(ARGV[2]), tonumber(ARGV[3])
local refused_for, must_wait = 0, false

for i = 1, #KEYS, 2 do
  local allowed = tonumber(ARGV[3 + (i + 1) / 2])
  redis.call('ZREMRANGEBYSCORE', KEYS[i], '-inf', now - window)
  redis.call('ZREMRANGEBYSCORE', KEYS[i + 1], '-inf', now)
  local failed = redis.call('ZCARD', KEYS[i])
  if failed >= allowed then
    -- A place is free again when the first of the last `allowed` failures is old enough.
    local first = redis.call('ZRANGE', KEYS[i], -allowed, -allowed, 'WITHSCORES')
    refused_for = math.max(refused_for, tonumber(first[2]) + window - now)
  elseif failed + redis.call('ZCARD', KEYS[i + 1]) >= allowed then
    must_wait = true
  end
end

if refused_for > 0 then return refused_for end
if must_wait then return -1 end
for i = 2, #KEYS, 2 do
  redis.call('ZADD', KEYS[i], now + longest, id)
  redis.call('PEXPIRE', KEYS[i], longest)
end
return 0
