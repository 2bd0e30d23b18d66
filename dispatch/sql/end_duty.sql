-- Stop counting the hours of mechanics who go off duty.
--
-- :mechanic_id, :at_ms
UPDATE duty_intervals SET ended_at_ms = greatest(:at_ms, started_at_ms)    -- postgresql
UPDATE duty_intervals SET ended_at_ms = max(:at_ms, started_at_ms)         -- sqlite
WHERE mechanic_id = :mechanic_id AND ended_at_ms IS NULL
