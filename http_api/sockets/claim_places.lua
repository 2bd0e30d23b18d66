-- Note how many sockets accounts have on one node, as far as they may have so many over all nodes.
--
-- KEYS[1]  zset  nodes: node_id, score: the node's lease end, ms since epoch
-- KEYS[2]  hash  this node's sockets: account_id -> how many. It expires with the node's lease, so a killed node's count for nothing.
-- ARGV[1]  prefix of these hashes, each node's id follows; all have this script's hash tag
-- ARGV[2]  node_id     ARGV[3]  lease, ms     ARGV[4]  how many sockets one account may have
-- ARGV[5..]  account_id, how many, 1 if that is one more, which may be refused (0 if it is so already); and so on
-- Returns  {1 if Redis did not know this node (else 0), for each account 1 if it is noted, 0 if it is refused}
-- Numbers are those of this node in all, so that saying them again heals what was lost. Idempotent.
local NODES, OWN = KEYS[1], KEYS[2]
local node_id, lease_ms, most = ARGV[2], tonumber(ARGV[3]), tonumber(ARGV[4])
local time = redis.call('TIME')
local now_ms = time[1] * 1000 + math.floor(time[2] / 1000)

local before_ms = redis.call('ZSCORE', NODES, node_id)
local is_known = before_ms and tonumber(before_ms) > now_ms
if not is_known then redis.call('DEL', OWN) end
redis.call('ZREMRANGEBYSCORE', NODES, '-inf', now_ms)
redis.call('ZADD', NODES, now_ms + lease_ms, node_id)

local others = {}
for _, id in ipairs(redis.call('ZRANGE', NODES, 0, -1)) do
  if id ~= node_id then others[#others + 1] = ARGV[1] .. id end
end

local reply = {is_known and 0 or 1}
for i = 5, #ARGV, 3 do
  local account_id, count, may_be_refused = ARGV[i], tonumber(ARGV[i + 1]), ARGV[i + 2] == '1'
  local in_all = count
  if may_be_refused then
    for _, theirs in ipairs(others) do
      -- What is no number is not of our making, and counts for nothing.
      in_all = in_all + (tonumber(redis.call('HGET', theirs, account_id) or '') or 0)
    end
  end
  if may_be_refused and in_all > most then
    reply[#reply + 1] = 0
  else
    if count > 0 then redis.call('HSET', OWN, account_id, count) else redis.call('HDEL', OWN, account_id) end
    reply[#reply + 1] = 1
  end
end
redis.call('PEXPIRE', OWN, lease_ms)
return reply
