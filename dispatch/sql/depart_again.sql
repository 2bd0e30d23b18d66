-- A mechanic who is disabled has been offered something nevertheless: it was paid before, or just then.
--
-- :id    :at_ms
UPDATE accounts SET departing_since_ms = :at_ms WHERE id = :id AND disabled_at_ms IS NOT NULL AND departing_since_ms IS NULL
