-- Forget revocations of tokens that have ended by themselves.
--
-- :ids, :before_ms
-- Returns  the ids
-- Locks  the revocations, but for those that somebody else has locked
DELETE FROM revocations
WHERE token_expires_at_ms IS NOT NULL AND token_expires_at_ms < :before_ms
  AND id IN (SELECT value FROM json_each(:ids))                                                     -- sqlite
  AND id = ANY (ARRAY(                                                                              -- postgresql
    SELECT id FROM revocations WHERE id = ANY (:ids) ORDER BY id FOR UPDATE SKIP LOCKED             -- postgresql
  ))                                                                                                -- postgresql
RETURNING id
