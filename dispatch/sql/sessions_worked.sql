-- A mechanic's sessions within a time, the earliest first: whose start and end the requests keep, one at a time.
--
-- :mechanic_id, :from_ms, :until_ms, :now_ms
-- Returns  from when until when (what goes on: now), whether it was completed, and what is earned by it: the price of what was bought,
--          nothing once all that was paid has gone back, by whomever
--
-- Of those that began before the time, only the last can reach into it.
SELECT
  r.started_at_ms, coalesce(r.settled_at_ms, :now_ms), r.status = 'completed',
  CASE
    WHEN coalesce(l.by_us_cents + l.by_others_cents + l.taken_cents, f.amount_cents) >= r.price_cents THEN 0
    ELSE c.price_cents
  END,
  c.currency
FROM session_requests r
JOIN checkouts c ON c.id = r.checkout_id
LEFT JOIN ledgers l ON l.checkout_id = r.checkout_id
-- A node of an earlier version has kept no ledger.
LEFT JOIN refunds f ON f.checkout_id = r.checkout_id AND f.status = 'succeeded'
WHERE r.assigned_mechanic_id = :mechanic_id AND r.started_at_ms IS NOT NULL AND r.started_at_ms < :until_ms
  AND r.started_at_ms >= coalesce(
    (
      SELECT e.started_at_ms FROM session_requests e
      WHERE e.assigned_mechanic_id = :mechanic_id AND e.started_at_ms <= :from_ms
      ORDER BY e.started_at_ms DESC
      LIMIT 1
    ),
    0
  )
ORDER BY r.started_at_ms
