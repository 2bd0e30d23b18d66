-- Priority offers that are open, each with what a mechanic is shown of its request; the soonest to end first.
--
-- :mechanic_ids, :now_ms
SELECT
  r.id, customer.name, r.plan_id, r.session_type, r.duration_min, c.note, c.price_cents, c.currency,
  o.id, o.kind, o.mechanic_id, o.opened_at_ms, o.expires_at_ms
FROM offers o
JOIN session_requests r ON r.id = o.request_id
JOIN checkouts c ON c.id = r.checkout_id
JOIN accounts customer ON customer.id = r.customer_id
WHERE o.closed_at_ms IS NULL AND o.expires_at_ms > :now_ms
  AND o.mechanic_id = ANY (:mechanic_ids)                              -- postgresql
  AND o.mechanic_id IN (SELECT value FROM json_each(:mechanic_ids))    -- sqlite
ORDER BY o.expires_at_ms
