-- What a mechanic is shown of offers that are over for them, and what decides how these ended.
--
-- :mechanic_id, :ids  offers
SELECT
  o.id, o.request_id, o.kind, customer.name, r.plan_id, r.session_type, r.duration_min, c.price_cents, c.currency,
  o.opened_at_ms, o.closed_at_ms, o.close_reason, o.taken_by_id, r.assigned_mechanic_id, e.because, e.at_ms
FROM offers o
JOIN session_requests r ON r.id = o.request_id
JOIN checkouts c ON c.id = r.checkout_id
JOIN accounts customer ON customer.id = r.customer_id
LEFT JOIN exclusions e ON e.request_id = o.request_id AND e.mechanic_id = :mechanic_id
WHERE o.id = ANY (:ids)                              -- postgresql
WHERE o.id IN (SELECT value FROM json_each(:ids))    -- sqlite
ORDER BY o.opened_at_ms DESC, o.id DESC
