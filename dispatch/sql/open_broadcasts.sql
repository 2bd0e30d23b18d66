-- Broadcasts that are open, as ``open_offers_of.sql``.
--
-- :now_ms, :limit
SELECT
  r.id, customer.name, r.plan_id, r.session_type, r.duration_min, c.note, c.price_cents, c.currency,
  o.id, o.kind, o.mechanic_id, o.opened_at_ms, o.expires_at_ms
FROM offers o
JOIN session_requests r ON r.id = o.request_id
JOIN checkouts c ON c.id = r.checkout_id
JOIN accounts customer ON customer.id = r.customer_id
WHERE o.closed_at_ms IS NULL AND o.expires_at_ms > :now_ms AND o.mechanic_id IS NULL
ORDER BY o.expires_at_ms
LIMIT :limit
