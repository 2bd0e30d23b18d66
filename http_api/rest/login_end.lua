-- End one attempt to sign in: it is no longer under way, and is remembered if it failed.
--
-- KEYS     as for login_begin.lua
-- ARGV[1]  id of the attempt   ARGV[2]  1 if it failed, else 0   ARGV[3]  window, ms
-- Returns  0
local time = redis.call('TIME')
local now = time[1] * 1000 + math.floor(time[2] / 1000)

for i = 1, #KEYS, 2 do
  redis.call('ZREM', KEYS[i + 1], ARGV[1])
  if ARGV[2] == '1' then
    redis.call('ZADD', KEYS[i], now, ARGV[1])
    redis.call('PEXPIRE', KEYS[i], ARGV[3])
  end
end
return 0
