-- What has been left to tell and whose node has not told it within its lease; in the order of ``due_events``.
--
-- :now_ms, :limit
SELECT id FROM outbox WHERE leased_until_ms <= :now_ms ORDER BY failures > 0, id LIMIT :limit
