-- A mechanic who is disabled has been offered something nevertheless: it was paid before, or just then.
--
-- :id    :at_ms
-- Always another instant than before: whoever is letting go of the account just now has not seen it.
UPDATE accounts SET departing_since_ms = CASE WHEN departing_since_ms >= :at_ms THEN departing_since_ms + 1 ELSE :at_ms END
WHERE id = :id AND disabled_at_ms IS NOT NULL
