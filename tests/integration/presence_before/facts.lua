-- Take over mechanics' facts from SQL unless Redis has the same or newer ones; announce what changes.
--
-- KEYS[1..4]  as in status.lua, which runs in front
-- ARGV[1]  channel prefix
-- ARGV[2..]  mechanic_id, facts_version, on_duty, busy, push (0 or 1), last_seen in SQL (ms, '-' for never); and so on
-- Returns  each one's status as a message, in order
-- Of those whom Redis did not know, only the online are announced: after a flush the others may be about to be renewed.
local reply = {}
for i = 2, #ARGV, 6 do
  local mechanic_id, facts_version, on_duty, busy, push, last_seen = unpack(ARGV, i, i + 5)
  if last_seen ~= '-' then redis.call('ZADD', SEEN, 'GT', last_seen, mechanic_id) end
  facts_version = tonumber(facts_version)

  local status = status_of(mechanic_id)
  local changed = false
  if not status then
    local online = redis.call('HEXISTS', HOLDERS, mechanic_id) == 1
    status = {version = now_ms, online = online and '1' or '0', facts_version = -1}
    changed = online
  elseif facts_version > status.facts_version then
    changed = status.on_duty ~= on_duty or status.busy ~= busy or status.push ~= push
    if changed then status.version = next_version(status.version) end
  end
  if facts_version > status.facts_version then
    status.on_duty, status.busy, status.push, status.facts_version = on_duty, busy, push, facts_version
    store(mechanic_id, status)
  end
  if changed then announce(mechanic_id, status) end
  reply[#reply + 1] = message(mechanic_id, status)
end
return reply
