-- Mechanics whose answers were counted so long ago that some of them may count no more.
--
-- :before_ms, :limit
SELECT mechanic_id FROM mechanic_responses WHERE counted_at_ms < :before_ms ORDER BY counted_at_ms LIMIT :limit
