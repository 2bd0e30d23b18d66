-- Open an offer; after the one before has been closed, as a request has one open offer at a time.
--
-- :id, :request_id, :kind, :mechanic_id, :opened_at_ms, :expires_at_ms
INSERT INTO offers (id, request_id, kind, mechanic_id, opened_at_ms, expires_at_ms, failures)
VALUES (:id, :request_id, :kind, :mechanic_id, :opened_at_ms, :expires_at_ms, 0)
