-- When the next break is over that is not over yet.
--
-- :now_ms
-- Returns  the instant, ms; NULL if nobody is on a break
SELECT min(back_at_ms) FROM mechanics WHERE back_at_ms > :now_ms
