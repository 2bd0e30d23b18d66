-- Note that everything that follows from an event has been done.
--
-- :id, :at_ms
UPDATE stripe_events SET processed_at_ms = :at_ms WHERE id = :id
