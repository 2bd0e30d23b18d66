-- Take an open broadcast to be looked at a second time; whoever's update matches does it.
--
-- :offer_id, :at_ms
-- Returns  the id; no row if it is closed or somebody else has taken it
UPDATE offers SET looked_again_at_ms = :at_ms
WHERE id = :offer_id AND looked_again_at_ms IS NULL AND closed_at_ms IS NULL
RETURNING id
