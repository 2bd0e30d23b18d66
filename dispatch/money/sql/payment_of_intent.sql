-- What is known here of a payment: its ledger (of none that has moved yet, zeros), what Stripe has told of it, and whether all of it
-- is to go back.
--
-- :payment_intent_id
-- Returns  a row of ``KnownPayment``; none if no checkout has been paid with it
SELECT
  c.payment_intent_id, c.id, r.id, coalesce(l.version, 0),
  coalesce(l.paid_cents, r.price_cents, f.amount_cents, c.price_cents),
  f.id, f.status, f.stripe_refund_id, coalesce(f.attempts, 0),
  (
    SELECT coalesce(json_agg(json_build_object(                                                  -- postgresql
    SELECT json_group_array(json_object(                                                         -- sqlite
      'id', e.id, 'kind', e.kind, 'amount_cents', e.amount_cents, 'status', e.status,
      'is_ours', e.is_ours, 'is_refundable', e.is_refundable)), '[]')                            -- postgresql
      'is_ours', e.is_ours, 'is_refundable', e.is_refundable))                                   -- sqlite
    FROM ledger_entries e WHERE e.payment_intent_id = c.payment_intent_id
  )
FROM checkouts c
LEFT JOIN ledgers l ON l.payment_intent_id = c.payment_intent_id
LEFT JOIN session_requests r ON r.checkout_id = c.id
LEFT JOIN refunds f ON f.checkout_id = c.id
WHERE c.payment_intent_id = :payment_intent_id
LIMIT 1
