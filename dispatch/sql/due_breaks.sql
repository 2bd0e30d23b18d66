-- Mechanics whose breaks are over, the longest over first.
--
-- :now_ms, :limit
SELECT id FROM mechanics WHERE back_at_ms <= :now_ms ORDER BY back_at_ms LIMIT :limit
