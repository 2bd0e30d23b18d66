-- Everything that is decided by or shown of requests: their own rows, the open offer, who is excluded, the story, names, money.
--
-- :ids  requests; which there is none of is missing in the answer
-- Returns  a row of ``StoredRequest`` for each, in the order of their ids
--
-- Within a writing transaction it comes after the lock, in a statement of its own: PostgreSQL's default isolation lets each
-- statement see what was committed before it began, so what waited for the lock would see the request as it is and the rest as it was.
--
-- All that belongs to a request is looked up row by row, by subqueries that PostgreSQL cannot make joins of: a planner whose
-- statistics are from a quiet hour, or that has none, reads all accounts for each request's story, and all open offers of a rush
-- hour for a few requests; of EXISTS it makes a list of all rows that there may be. SQLite joins row by row in any case.
SELECT
  r.id, r.version, r.checkout_id,
  r.customer_id, (SELECT name FROM accounts WHERE id = r.customer_id),
  r.plan_id, r.session_type, r.duration_min, r.price_cents, r.routing_type,
  r.preferred_mechanic_id, (SELECT name FROM accounts WHERE id = r.preferred_mechanic_id),
  r.assigned_mechanic_id, (SELECT name FROM accounts WHERE id = r.assigned_mechanic_id),
  r.status, r.fallback_reason,
  r.priority_offer_id, r.created_at_ms, r.accepted_at_ms, r.started_at_ms, r.completed_at_ms, r.settled_at_ms,
  o.id, o.kind, o.mechanic_id, o.opened_at_ms, o.expires_at_ms, o.mechanic_is_busy,
  r.limit_id, r.limit_of_ms, r.limit_expires_at_ms, r.limit_rings_at_ms,
  c.price_cents, c.currency, c.note, c.payment_intent_id,
  refund.status, refund.amount_cents, refund.set_aside_at_ms IS NOT NULL,
  coalesce(l.by_us_cents + l.by_others_cents, 0), coalesce(l.on_its_way_cents, 0), coalesce(l.taken_cents, 0), l.dispute,
  coalesce(
    (SELECT true FROM favorites f WHERE f.customer_id = r.customer_id AND f.mechanic_id = r.assigned_mechanic_id LIMIT 1), false
  ),
  coalesce(
    (SELECT true FROM push_subscriptions s WHERE s.mechanic_id = r.customer_id AND s.set_aside_at_ms IS NULL LIMIT 1), false
  ),
  coalesce((SELECT m.has_push FROM mechanics m WHERE m.id = r.assigned_mechanic_id), false),
  coalesce((SELECT m.active_request_id <> r.id FROM mechanics m WHERE m.id = r.preferred_mechanic_id), false),
  (
    SELECT coalesce(json_agg(e.mechanic_id), '[]')                                               -- postgresql
    SELECT json_group_array(e.mechanic_id)                                                       -- sqlite
    FROM exclusions e WHERE e.request_id = r.id
  ),
  (
    SELECT coalesce(json_agg(json_build_array(t.id, t.at_ms, t.event, t.details,                 -- postgresql
      (SELECT m.name FROM accounts m WHERE m.id = t.details ->> 'mechanic_id'))), '[]')          -- postgresql
    SELECT json_group_array(json_array(t.id, t.at_ms, t.event, json(t.details),                  -- sqlite
      (SELECT m.name FROM accounts m WHERE m.id = json_extract(t.details, '$.mechanic_id'))))    -- sqlite
    FROM timeline t WHERE t.request_id = r.id
  )
FROM session_requests r
JOIN LATERAL (SELECT * FROM checkouts WHERE id = r.checkout_id LIMIT 1) c ON true                -- postgresql
LEFT JOIN LATERAL (                                                                              -- postgresql
  SELECT * FROM offers WHERE request_id = r.id AND closed_at_ms IS NULL LIMIT 1                  -- postgresql
) o ON true                                                                                      -- postgresql
LEFT JOIN LATERAL (SELECT * FROM refunds WHERE request_id = r.id LIMIT 1) refund ON true         -- postgresql
LEFT JOIN LATERAL (                                                                              -- postgresql
  SELECT * FROM ledgers WHERE payment_intent_id = c.payment_intent_id LIMIT 1                    -- postgresql
) l ON true                                                                                      -- postgresql
JOIN checkouts c ON c.id = r.checkout_id                                                         -- sqlite
LEFT JOIN offers o ON o.request_id = r.id AND o.closed_at_ms IS NULL                             -- sqlite
LEFT JOIN refunds refund ON refund.request_id = r.id                                             -- sqlite
LEFT JOIN ledgers l ON l.payment_intent_id = c.payment_intent_id                                 -- sqlite
WHERE r.id = ANY (:ids)                              -- postgresql
WHERE r.id IN (SELECT value FROM json_each(:ids))    -- sqlite
ORDER BY r.id
