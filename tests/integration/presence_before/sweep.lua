-- Remove what has lapsed from one node's leases, at most so many; announce those who are offline now.
--
-- KEYS[1..4]  as in status.lua, which runs in front
-- KEYS[5]  zset  the node's leases: mechanic_id, score: lease end, ms since epoch
-- KEYS[6]  zset  nodes: node_id, score: the node's own lease end
-- ARGV[1]  channel prefix     ARGV[2]  node_id     ARGV[3]  how many at most
-- ARGV[4]  'own': only lapsed leases · 'other': all of them, provided that the node's own lease has ended
-- Returns  {1 if there is more to sweep (else 0), mechanic_id, last heartbeat (ms) or '-', ... of those now offline}
-- Several nodes may sweep the same one: a lease is removed once, and only that counts.
local LEASES, NODES = KEYS[5], KEYS[6]
local limit = tonumber(ARGV[3])

local ids
if ARGV[4] == 'own' then
  ids = redis.call('ZRANGE', LEASES, '-inf', now_ms, 'BYSCORE', 'LIMIT', 0, limit)
else
  -- The node may have come back, or another sweeper may be done with it.
  local node_end_ms = redis.call('ZSCORE', NODES, ARGV[2])
  if not node_end_ms or tonumber(node_end_ms) > now_ms then return {0} end
  ids = redis.call('ZRANGE', LEASES, 0, limit - 1)
  if #ids < limit then redis.call('ZREM', NODES, ARGV[2]) end
end

local reply = {#ids == limit and 1 or 0}
for _, mechanic_id in ipairs(ids) do
  redis.call('ZREM', LEASES, mechanic_id)
  if hold(mechanic_id, -1) == 0 then
    turn(mechanic_id, '0')
    reply[#reply + 1] = mechanic_id
    reply[#reply + 1] = redis.call('ZSCORE', SEEN, mechanic_id) or '-'
  end
end
return reply
