-- Renew a node's own lease and tell it how things stand.
--
-- KEYS[1]  zset    nodes: node_id, score: lease end, ms since epoch
-- KEYS[2]  string  epoch: when this memory of presence began; another one than before means that Redis has forgotten
-- KEYS[3]  zset    the node's leases: mechanic_id, score: lease end, ms since epoch
-- ARGV[1]  node_id     ARGV[2]  lease, ms
-- Returns  {epoch, 1 if the node's lease held until now (else 0), how many of its leases have lapsed,
--           ids of nodes whose lease has ended}
local time = redis.call('TIME')
local now_ms = time[1] * 1000 + math.floor(time[2] / 1000)

local epoch = redis.call('GET', KEYS[2])
if not epoch then
  epoch = time[1] .. '.' .. time[2]
  redis.call('SET', KEYS[2], epoch)
end
local before_ms = redis.call('ZSCORE', KEYS[1], ARGV[1])
redis.call('ZADD', KEYS[1], now_ms + ARGV[2], ARGV[1])
local held = before_ms and tonumber(before_ms) > now_ms
local lapsed = redis.call('ZCOUNT', KEYS[3], '-inf', now_ms)
return {epoch, held and 1 or 0, lapsed, unpack(redis.call('ZRANGE', KEYS[1], '-inf', now_ms, 'BYSCORE'))}
