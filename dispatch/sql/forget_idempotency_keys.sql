-- Let checkouts forget under which key they were asked for; the same key asks for a new one from now on.
--
-- :ids, :before_ms
-- Returns  the ids
-- Locks  the checkouts, but for those that somebody else has locked
UPDATE checkouts SET idempotency_key = NULL, idempotency_hash = NULL
WHERE idempotency_key IS NOT NULL AND status <> 'open' AND created_at_ms < :before_ms
  AND id IN (SELECT value FROM json_each(:ids))                                                     -- sqlite
  AND id = ANY (ARRAY(                                                                              -- postgresql
    SELECT id FROM checkouts WHERE id = ANY (:ids) ORDER BY id FOR NO KEY UPDATE SKIP LOCKED        -- postgresql
  ))                                                                                                -- postgresql
RETURNING id
