-- End a node's own lease after the grace; then another node sweeps what it held. Those who reconnect until then never flicker.
--
-- KEYS[1]  zset  nodes: node_id, score: lease end, ms since epoch
-- ARGV[1]  node_id     ARGV[2]  grace, ms
local time = redis.call('TIME')
local now_ms = time[1] * 1000 + math.floor(time[2] / 1000)
return redis.call('ZADD', KEYS[1], 'XX', now_ms + ARGV[2], ARGV[1])
