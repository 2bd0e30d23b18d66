-- How many payments are to go back and have not arrived, by what they wait for; see ``UnfinishedRefund.state``.
--
-- Returns  a row of ``UnfinishedCount`` each
SELECT
  CASE
    WHEN f.status = 'failed' OR f.set_aside_at_ms IS NOT NULL THEN 'failed'
    WHEN l.dispute = 'open' THEN 'held'
    WHEN l.on_its_way_cents > 0 AND f.amount_cents <= l.by_us_cents + l.by_others_cents + l.taken_cents THEN 'on_its_way'
    ELSE 'owed'
  END,
  count(*)
FROM refunds f LEFT JOIN ledgers l ON l.payment_intent_id = f.payment_intent_id
WHERE f.status <> 'succeeded'
GROUP BY 1
