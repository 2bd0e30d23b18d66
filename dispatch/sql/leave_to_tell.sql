-- Leave something to be told after the commit; leased to the node that will do so at once.
--
-- :id, :kind, :payload (JSON), :leased_until_ms
INSERT INTO outbox (id, kind, payload, leased_until_ms, failures) VALUES (:id, :kind, :payload, :leased_until_ms, 0)
