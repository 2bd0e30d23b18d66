-- Let the leases of mechanics whose last socket on one node has closed end after the grace, which hides a reconnect.
--
-- KEYS[1]  zset  this node's leases: mechanic_id, score: lease end, ms since epoch
-- ARGV[1]  grace, ms     ARGV[2..]  mechanic ids
-- LT: the grace may shorten a lease, not lengthen it. XX: what has lapsed already stays so. Sweeping does the rest.
local time = redis.call('TIME')
local end_ms = time[1] * 1000 + math.floor(time[2] / 1000) + ARGV[1]
for i = 2, #ARGV do
  redis.call('ZADD', KEYS[1], 'XX', 'LT', end_ms, ARGV[i])
end
return #ARGV - 1
