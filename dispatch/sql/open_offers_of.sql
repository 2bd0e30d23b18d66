-- Priority offers that are open, each with what a mechanic is shown of its request; the soonest to end first.
--
-- :mechanic_ids, :now_ms
--
-- Mechanic by mechanic, also to PostgreSQL: a planner whose statistics are from a quiet hour would read all that is open.
SELECT
  r.id, customer.name, r.plan_id, r.session_type, r.duration_min, c.note, c.price_cents, c.currency,
  o.id, o.kind, o.mechanic_id, o.opened_at_ms, o.expires_at_ms
FROM unnest(:mechanic_ids::varchar[]) asked (id)                                                     -- postgresql
CROSS JOIN LATERAL (                                                                                 -- postgresql
  SELECT * FROM offers WHERE mechanic_id = asked.id AND closed_at_ms IS NULL OFFSET 0                -- postgresql
) o                                                                                                  -- postgresql
FROM offers o                                                                                        -- sqlite
JOIN session_requests r ON r.id = o.request_id
JOIN checkouts c ON c.id = r.checkout_id
JOIN accounts customer ON customer.id = r.customer_id
WHERE o.expires_at_ms > :now_ms
  AND o.closed_at_ms IS NULL AND o.mechanic_id IN (SELECT value FROM json_each(:mechanic_ids))       -- sqlite
ORDER BY o.expires_at_ms
