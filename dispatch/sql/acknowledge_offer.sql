-- Note, once, that a priority offer has reached the favourite's app.
--
-- :offer_id, :at_ms
-- Returns  the id; no row if it is closed or has been noted before
UPDATE offers SET delivered_at_ms = :at_ms
WHERE id = :offer_id AND closed_at_ms IS NULL AND delivered_at_ms IS NULL
RETURNING id
