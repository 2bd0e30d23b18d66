-- Take an offer that has ended; whoever's update matches tells the browsers.
--
-- :offer_id, :at_ms
-- Returns  the id; no row if somebody else has taken it
UPDATE offers SET unpushed_at_ms = :at_ms
WHERE id = :offer_id AND unpushed_at_ms IS NULL
RETURNING id
