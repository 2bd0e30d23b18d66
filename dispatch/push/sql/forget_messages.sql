-- Forget messages that are no use any more; till then they keep a second one from being made.
--
-- :before_ms, :limit
-- Returns  the ids
--
-- As an array: PostgreSQL would join with what it finds, and read all messages for it.
DELETE FROM push_messages
WHERE id = ANY (ARRAY(SELECT id FROM push_messages WHERE expires_at_ms < :before_ms LIMIT :limit))     -- postgresql
WHERE id IN (SELECT id FROM push_messages WHERE expires_at_ms < :before_ms LIMIT :limit)               -- sqlite
RETURNING id
