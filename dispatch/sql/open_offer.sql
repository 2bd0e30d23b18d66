-- Open an offer; after the one before has been closed, as a request has one open offer at a time.
--
-- :id, :request_id, :kind, :mechanic_id, :opened_at_ms, :expires_at_ms, :mechanic_is_busy
INSERT INTO offers (id, request_id, kind, mechanic_id, opened_at_ms, expires_at_ms, mechanic_is_busy, failures, may_wake)
VALUES (
  :id, :request_id, :kind, :mechanic_id, :opened_at_ms, :expires_at_ms, :mechanic_is_busy, 0,
  coalesce((SELECT m.has_push FROM mechanics m WHERE m.id = CAST(:mechanic_id AS varchar)), false)
)
