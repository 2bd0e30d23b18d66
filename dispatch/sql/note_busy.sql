-- Note what the customer of an open priority offer is told: whether the favourite is in a session with somebody else.
--
-- :offer_id, :is_busy
UPDATE offers SET mechanic_is_busy = :is_busy WHERE id = :offer_id
