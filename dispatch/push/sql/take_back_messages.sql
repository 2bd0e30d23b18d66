-- Do not send any more what is about something that has ended.
--
-- :about_id, :kind, :at_ms
UPDATE push_messages SET done_at_ms = :at_ms WHERE about_id = :about_id AND kind = :kind AND done_at_ms IS NULL
