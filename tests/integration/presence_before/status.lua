-- What renew.lua, sweep.lua and facts.lua share; it runs in front of each of them, in the same script.
--
-- KEYS[1]  hash  statuses: mechanic_id -> "version online on_duty busy push facts_version", all integers, flags 0 or 1.
--                A mechanic is in it once their facts are known; nobody is announced before.
-- KEYS[2]  zset  member: mechanic_id, score: last heartbeat received, ms since epoch
-- KEYS[3]  set   the available: online, on duty, not in a session
-- KEYS[4]  hash  holders: mechanic_id -> how many nodes have them in their leases
-- ARGV[1]  prefix of the channels on which statuses are announced, one per mechanic
-- One clock judges all leases: this server's.
local STATUSES, SEEN, AVAILABLE, HOLDERS, CHANNEL = KEYS[1], KEYS[2], KEYS[3], KEYS[4], ARGV[1]

local time = redis.call('TIME')
local now_ms = time[1] * 1000 + math.floor(time[2] / 1000)

local function status_of(mechanic_id)
  local packed = redis.call('HGET', STATUSES, mechanic_id)
  if not packed then return nil end
  local version, online, on_duty, busy, push, facts_version = packed:match('^(%d+) (%d) (%d) (%d) (%d) (%d+)$')
  -- Not of our making: as good as unknown. One such record must not fail the script, and with it everybody of a batch.
  if not version then return nil end
  return {version = tonumber(version), online = online, on_duty = on_duty, busy = busy, push = push,
          facts_version = tonumber(facts_version)}
end

local function store(mechanic_id, status)
  redis.call('HSET', STATUSES, mechanic_id, string.format('%.0f %s %s %s %s %.0f',
    status.version, status.online, status.on_duty, status.busy, status.push, status.facts_version))
  local available = status.online == '1' and status.on_duty == '1' and status.busy == '0'
  redis.call(available and 'SADD' or 'SREM', AVAILABLE, mechanic_id)
end

-- The clock is in the version so that it grows even if the previous one was lost to a flush.
local function next_version(previous)
  return math.max(previous + 1, now_ms)
end

-- Everything a reader needs, so that a change costs no query: "mechanic_id <as stored> last_seen as_of"; '-' is never.
local function message(mechanic_id, status)
  return string.format('%s %.0f %s %s %s %s %.0f %s %.0f', mechanic_id, status.version, status.online, status.on_duty,
    status.busy, status.push, status.facts_version, redis.call('ZSCORE', SEEN, mechanic_id) or '-', now_ms)
end

local function announce(mechanic_id, status)
  redis.call('SPUBLISH', CHANNEL .. mechanic_id, message(mechanic_id, status))
end

-- Count one node more or less that holds leases of a mechanic, and return how many do. What is no number counts as nobody.
local function hold(mechanic_id, by)
  local nodes = math.max(0, (tonumber(redis.call('HGET', HOLDERS, mechanic_id) or '') or 0) + by)
  if nodes > 0 then
    redis.call('HSET', HOLDERS, mechanic_id, nodes)
  else
    redis.call('HDEL', HOLDERS, mechanic_id)
  end
  return nodes
end

local function turn(mechanic_id, online)
  local status = status_of(mechanic_id)
  if status and status.online ~= online then
    status.online, status.version = online, next_version(status.version)
    store(mechanic_id, status)
    announce(mechanic_id, status)
  end
end
