-- What a customer has had done, by mechanic and by currency: the sessions served, and what was paid for them and is not given back.
--
-- :customer_id
-- Returns  the mechanic, the currency, how many sessions, how many of them cost anything in the end and how much in all, when the
--          last one was completed
SELECT
  s.mechanic_id, s.currency, count(*), count(CASE WHEN s.spent_cents > 0 THEN 1 END), CAST(sum(s.spent_cents) AS bigint),
  max(s.completed_at_ms)
FROM (
  SELECT
    r.assigned_mechanic_id AS mechanic_id, r.currency, r.completed_at_ms,
    r.price_cents - coalesce(l.by_us_cents + l.by_others_cents + l.taken_cents, f.amount_cents, 0) AS spent_cents
  FROM session_requests r
  LEFT JOIN ledgers l ON l.checkout_id = r.checkout_id
  -- A node of an earlier version has kept no ledger.
  LEFT JOIN refunds f ON f.checkout_id = r.checkout_id AND f.status = 'succeeded'
  WHERE r.customer_id = :customer_id AND r.status = 'completed'
) s
GROUP BY s.mechanic_id, s.currency
