-- The push service has the message, or it is no use any more.
--
-- :id, :at_ms
UPDATE push_messages SET done_at_ms = :at_ms WHERE id = :id
