-- A mechanic's sessions within a time, the earliest first: whose start and end the requests keep, one at a time.
--
-- :mechanic_id, :from_ms, :until_ms, :now_ms
-- Returns  from when until when (what goes on: now), whether it was completed, and the price of what was bought
--
-- Of those that began before the time, only the last can reach into it.
SELECT r.started_at_ms, coalesce(r.settled_at_ms, :now_ms), r.status = 'completed', c.price_cents, c.currency
FROM session_requests r
JOIN checkouts c ON c.id = r.checkout_id
WHERE r.assigned_mechanic_id = :mechanic_id AND r.started_at_ms IS NOT NULL AND r.started_at_ms < :until_ms
  AND r.started_at_ms >= coalesce(
    (
      SELECT max(e.started_at_ms) FROM session_requests e
      WHERE e.assigned_mechanic_id = :mechanic_id AND e.started_at_ms <= :from_ms
    ),
    0
  )
ORDER BY r.started_at_ms
