-- Forget messages that are no use any more; till then they keep a second one from being made.
--
-- :before_ms, :limit
DELETE FROM push_messages WHERE id IN (SELECT id FROM push_messages WHERE expires_at_ms < :before_ms LIMIT :limit)
