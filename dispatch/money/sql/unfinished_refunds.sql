-- What is to go back and has not arrived, the oldest first.
--
-- :after (an id; empty: from the first), :limit
-- Returns  a row of ``UnfinishedRefund`` each
SELECT
  f.id, f.request_id, f.status, f.currency, f.amount_cents,
  f.amount_cents - coalesce(l.by_us_cents + l.by_others_cents + l.taken_cents, 0),
  coalesce(l.on_its_way_cents, 0), coalesce(l.dispute = 'open', false), f.set_aside_at_ms IS NOT NULL, f.attempts, f.cause,
  f.last_error
FROM refunds f LEFT JOIN ledgers l ON l.payment_intent_id = f.payment_intent_id
WHERE f.status <> 'succeeded' AND f.id > :after
ORDER BY f.id
LIMIT :limit
