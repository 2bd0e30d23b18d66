-- The disputes that banks have not decided yet.
--
-- :limit
-- Returns  a row of ``OpenDispute`` each
SELECT e.id, l.payment_intent_id, r.id, e.amount_cents, c.currency, e.status
FROM (
  SELECT payment_intent_id, checkout_id FROM ledgers WHERE is_unsettled AND dispute = 'open' ORDER BY looked_at_ms LIMIT :limit
) l
JOIN ledger_entries e ON e.payment_intent_id = l.payment_intent_id
JOIN checkouts c ON c.id = l.checkout_id
LEFT JOIN session_requests r ON r.checkout_id = c.id
WHERE e.kind = 'dispute' AND e.status NOT IN ('won', 'lost', 'warning_closed', 'prevented')
