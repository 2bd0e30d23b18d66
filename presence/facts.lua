-- Take over mechanics' facts from SQL unless Redis has the same or newer ones; announce what changes.
--
-- KEYS[1..5]  as in status.lua, which runs in front
-- KEYS[6..]   sets, one for each kind of session: who has switched it off
-- ARGV[1]  channel prefix
-- ARGV[2]  the kinds, in the order of their sets, with commas between
-- ARGV[3..]  mechanic_id, facts_version, on_duty, busy, push (0 or 1), last_seen in SQL (ms, '-' for never), types off; and so on
-- Returns  each one's status as a message, in order
-- Of those whom Redis did not know, only the online are announced: after a flush the others may be about to be renewed.
-- The same facts are taken again if the types off differ: a node of the version before, which brought them, does not know those.
local function switch_off(mechanic_id, types_off)
  if types_off == '' then
    redis.call('HDEL', TYPES_OFF, mechanic_id)
  else
    redis.call('HSET', TYPES_OFF, mechanic_id, types_off)
  end
  local place = 6
  for kind in ARGV[2]:gmatch('[^,]+') do
    local is_off = (',' .. types_off .. ','):find(',' .. kind .. ',', 1, true)
    redis.call(is_off and 'SADD' or 'SREM', KEYS[place], mechanic_id)
    place = place + 1
  end
end

local reply = {}
for i = 3, #ARGV, 7 do
  local mechanic_id, facts_version, on_duty, busy, push, last_seen, types_off = unpack(ARGV, i, i + 6)
  if last_seen ~= '-' then redis.call('ZADD', SEEN, 'GT', last_seen, mechanic_id) end
  facts_version = tonumber(facts_version)

  local status = status_of(mechanic_id)
  local changed, is_news = false, false
  if not status then
    local online = redis.call('HEXISTS', HOLDERS, mechanic_id) == 1
    status = {version = now_ms, online = online and '1' or '0', types_off = types_off_of(mechanic_id)}
    changed, is_news = online, true
  elseif facts_version > status.facts_version or (facts_version == status.facts_version and types_off ~= status.types_off) then
    is_news = true
    changed = status.on_duty ~= on_duty or status.busy ~= busy or status.push ~= push or status.types_off ~= types_off
    if changed then status.version = next_version(status.version) end
  end
  if is_news then
    if status.types_off ~= types_off then switch_off(mechanic_id, types_off) end
    status.on_duty, status.busy, status.push, status.facts_version = on_duty, busy, push, facts_version
    status.types_off = types_off
    store(mechanic_id, status)
  end
  if changed then announce(mechanic_id, status) end
  reply[#reply + 1] = message(mechanic_id, status)
end
return reply
