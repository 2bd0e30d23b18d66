-- Renew the leases of mechanics whom one node has just heard; announce those who come online.
--
-- KEYS[1..4]  as in status.lua, which runs in front
-- KEYS[5]  zset  this node's leases: mechanic_id, score: lease end, ms since epoch
-- KEYS[6]  zset  nodes: node_id, score: the node's own lease end
-- ARGV[1]  channel prefix     ARGV[2]  node_id     ARGV[3]  node's lease, ms     ARGV[4]  mechanic's lease, ms
-- ARGV[5..]  "heard_at_ms mechanic_id mechanic_id ...": those last heard at the same instant, ms since epoch
-- Returns  {1 if Redis did not know this node (else 0), ids newly held here: their facts are worth reading again}
-- GT: a heartbeat delayed on its way must not shorten a newer lease. Idempotent but for the ids returned.
local LEASES, NODES = KEYS[5], KEYS[6]
local lease_ms = tonumber(ARGV[4])

local heard, ids, leases = {}, {}, {}
for i = 5, #ARGV do
  local at, mechanic_ids = ARGV[i]:match('^(%d+) (.*)$')
  -- A node whose clock runs ahead must not make leases longer, nor the last heartbeat lie in the future.
  local at_ms = math.min(tonumber(at), now_ms)
  -- As text, once: turning a number into text for each of thousands would be the dearest part of this.
  local seen, lease_end = string.format('%.0f', at_ms), string.format('%.0f', at_ms + lease_ms)
  local is_live = at_ms + lease_ms > now_ms
  for mechanic_id in mechanic_ids:gmatch('%S+') do
    heard[#heard + 1] = seen
    heard[#heard + 1] = mechanic_id
    if is_live then
      ids[#ids + 1] = mechanic_id
      leases[#leases + 1] = lease_end
      leases[#leases + 1] = mechanic_id
    end
  end
end
if #heard > 0 then redis.call('ZADD', SEEN, 'GT', unpack(heard)) end

-- In the same script as the leases: whoever has leases is in the list of nodes, so that somebody will sweep them.
local reply = {redis.call('ZADD', NODES, now_ms + ARGV[3], ARGV[2])}
if #ids == 0 then return reply end

local before = redis.call('ZMSCORE', LEASES, unpack(ids))
redis.call('ZADD', LEASES, 'GT', unpack(leases))
for i, mechanic_id in ipairs(ids) do
  if not before[i] then
    if hold(mechanic_id, 1) == 1 then turn(mechanic_id, '1') end
    reply[#reply + 1] = mechanic_id
  end
end
return reply
