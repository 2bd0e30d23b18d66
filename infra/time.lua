-- Tell the time of the server that a key lives on.
--
-- KEYS[1]  any key; it is not looked at
-- Returns  {seconds since epoch, microseconds}, as TIME does
return redis.call('TIME')
