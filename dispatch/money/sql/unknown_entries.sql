-- Of refunds and disputes that Stripe has listed, the payments of ours that have not been told of them, or not of how they stand now.
--
-- :entries (JSON)  a list of [id, payment_intent_id, status]
-- Returns  ids of PaymentIntents
--
-- Looked up one by one, as in ``read_requests.sql``.
SELECT DISTINCT c.payment_intent_id
FROM json_array_elements(CAST(:entries AS json)) AS said(entry)                                 -- postgresql
JOIN LATERAL (                                                                                  -- postgresql
  SELECT payment_intent_id FROM checkouts WHERE payment_intent_id = said.entry ->> 1 LIMIT 1    -- postgresql
) c ON true                                                                                     -- postgresql
LEFT JOIN LATERAL (                                                                             -- postgresql
  SELECT id, status FROM ledger_entries WHERE id = said.entry ->> 0 LIMIT 1                     -- postgresql
) e ON true                                                                                     -- postgresql
WHERE e.id IS NULL OR e.status <> said.entry ->> 2                                              -- postgresql
FROM json_each(:entries) AS said                                                                -- sqlite
JOIN checkouts c ON c.payment_intent_id = json_extract(said.value, '$[1]')                      -- sqlite
LEFT JOIN ledger_entries e ON e.id = json_extract(said.value, '$[0]')                           -- sqlite
WHERE e.id IS NULL OR e.status <> json_extract(said.value, '$[2]')                              -- sqlite
