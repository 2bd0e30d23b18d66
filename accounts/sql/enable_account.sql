-- Let an account be used again, unless it has been erased. What has let go of it meanwhile does not come back.
--
-- :id
-- Returns  its id; no row if that is so already, or if there is no such account
UPDATE accounts SET disabled_at_ms = NULL, departing_since_ms = NULL WHERE id = :id AND disabled_at_ms IS NOT NULL AND erased_at_ms IS NULL
RETURNING id
