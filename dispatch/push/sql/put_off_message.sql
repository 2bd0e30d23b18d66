-- Send a message later.
--
-- :id, :due_at_ms, :is_forbidden (whether the answer to this try was 403)
UPDATE push_messages SET due_at_ms = :due_at_ms, was_forbidden = was_forbidden OR :is_forbidden
WHERE id = :id AND done_at_ms IS NULL
