-- Do not send an account any more what a newer message about a request says better, or what has been overtaken.
--
-- :request_id, :kind, :at_ms
-- :account_id  whose browsers: others may still have to hear what is true of them
-- :but         what the newer ones are called, before the browser's id
UPDATE push_messages SET done_at_ms = :at_ms
WHERE about_id = :request_id AND kind = :kind AND done_at_ms IS NULL AND substr(id, 1, length(:but) + 1) <> :but || '-'
  AND subscription_id IN (SELECT s.id FROM push_subscriptions s WHERE s.mechanic_id = :account_id)
