-- Do not send a message: whom it is for sees it already. It counts as never sent.
--
-- :id, :at_ms
UPDATE push_messages SET done_at_ms = :at_ms, attempts = 0 WHERE id = :id
