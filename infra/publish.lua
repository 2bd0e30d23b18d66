-- Publish payloads in one message to all who understand that, or each by itself while somebody listens who does not.
--
-- KEYS[1]  channel that nodes of every version listen to, of one payload in a message
-- KEYS[2]  channel that nodes of this version listen to as well, of payloads in lines
-- ARGV     payloads, in order
-- Returns  how many heard
local function listeners(channel)
  return redis.call('PUBSUB', 'SHARDNUMSUB', channel)[2]
end
if #ARGV > 1 and listeners(KEYS[1]) <= listeners(KEYS[2]) then
  return redis.call('SPUBLISH', KEYS[2], table.concat(ARGV, '\n'))
end
local heard = 0
for _, payload in ipairs(ARGV) do
  heard = redis.call('SPUBLISH', KEYS[1], payload)
end
return heard
