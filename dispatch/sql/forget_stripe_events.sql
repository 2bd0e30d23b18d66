-- Forget events that have been worked off; should Stripe repeat one, it is worked on again, which changes nothing.
--
-- :ids, :before_ms
-- Returns  the ids
-- Locks  the events, but for those that somebody else has locked
DELETE FROM stripe_events
WHERE processed_at_ms IS NOT NULL AND processed_at_ms < :before_ms
  AND id IN (SELECT value FROM json_each(:ids))                                                     -- sqlite
  AND id = ANY (ARRAY(                                                                              -- postgresql
    SELECT id FROM stripe_events WHERE id = ANY (:ids) ORDER BY id FOR UPDATE SKIP LOCKED           -- postgresql
  ))                                                                                                -- postgresql
RETURNING id
