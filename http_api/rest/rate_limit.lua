-- Count one more of something within a window that begins with the first; refuse what is too many, uncounted.
--
-- KEYS[1]  string  how many there were; lives as long as the window
-- ARGV[1]  allowed   ARGV[2]  window, ms
-- Returns  0: counted   n > 0: refused for n ms
local count = tonumber(redis.call('GET', KEYS[1]) or '0')
if count >= tonumber(ARGV[1]) then
  local left = redis.call('PTTL', KEYS[1])
  if left > 0 then return left end
  redis.call('DEL', KEYS[1])
end
if redis.call('INCR', KEYS[1]) == 1 then redis.call('PEXPIRE', KEYS[1], ARGV[2]) end
return 0
