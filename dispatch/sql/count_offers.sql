-- Take priority offers that are over to be counted among their mechanics' answers; whoever's update matches does it.
--
-- :now_ms, :limit
-- Returns  each one's mechanic
UPDATE offers SET counted_at_ms = :now_ms
WHERE id IN (
  SELECT id FROM offers
  WHERE counted_at_ms IS NULL AND closed_at_ms IS NOT NULL AND mechanic_id IS NOT NULL
  ORDER BY id
  LIMIT :limit
  FOR UPDATE SKIP LOCKED    -- postgresql
)
RETURNING mechanic_id
