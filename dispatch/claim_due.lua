-- Claim windows that have ended, of offers and of time limits, by Redis' own clock; nobody else gets them while the claim lasts.
--
-- KEYS[1]  zset    member: window id, score: when it rings (or end of a claim), ms since epoch
-- KEYS[2]  string  when this memory of deadlines began, ms since epoch; another one than before: Redis has forgotten
-- ARGV[1]  prefix of the windows' own keys      ARGV[2]  length of a claim, ms      ARGV[3]  how many at most
-- ARGV[4..]  ids of windows that are closed: they are taken off the clock first
-- Returns  {now in ms, next score or -1, when this memory began, window id...}
-- A window is due when its own key has expired: the zset says when to look, the key says whether it is time. So a score that is
-- too early (a restored index) wakes nobody early. A time limit that has rung once, to remind, has no key any more, and a score alone
-- is never the last word: whoever gets a window asks the core, which goes by SQL, whether it is over.
local function is_of(kind, key)
  local found = redis.call('TYPE', key).ok
  return found == kind or found == 'none'
end
-- Somebody else's doing: without it nothing is lost, as SQL knows all deadlines.
if not is_of('zset', KEYS[1]) then redis.call('DEL', KEYS[1], KEYS[2]) end
if not is_of('string', KEYS[2]) then redis.call('DEL', KEYS[2]) end
local time = redis.call('TIME')
local now = time[1] * 1000 + math.floor(time[2] / 1000)
local began = redis.call('GET', KEYS[2])
if not began then
  began = string.format('%.0f', now)
  redis.call('SET', KEYS[2], began)
end
for i = 4, #ARGV do
  redis.call('ZREM', KEYS[1], ARGV[i])
  redis.call('DEL', ARGV[1] .. ARGV[i])
end
local answer = {now, -1, began}
for _, id in ipairs(redis.call('ZRANGEBYSCORE', KEYS[1], '-inf', now, 'LIMIT', 0, ARGV[3])) do
  local left = redis.call('PTTL', ARGV[1] .. id)
  if left > 0 then
    redis.call('ZADD', KEYS[1], now + left, id)
  elseif left == 0 then
    -- The key dies within this millisecond.
    redis.call('ZADD', KEYS[1], now + 1, id)
  else
    redis.call('ZADD', KEYS[1], now + tonumber(ARGV[2]), id)
    answer[#answer + 1] = id
  end
end
local first = redis.call('ZRANGE', KEYS[1], 0, 0, 'WITHSCORES')
if first[2] then answer[2] = math.floor(tonumber(first[2])) end
return answer
