-- Do not send any more what a newer message about a request says better.
--
-- :request_id, :kind, :at_ms
-- :but  what the newer ones are called, before the browser's id
UPDATE push_messages SET done_at_ms = :at_ms
WHERE about_id = :request_id AND kind = :kind AND done_at_ms IS NULL AND substr(id, 1, length(:but) + 1) <> :but || '-'
