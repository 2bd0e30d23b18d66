-- Everything that is decided by or shown of requests: their own rows, the open offer, who is excluded, the story, names, money.
--
-- :ids  requests; which there is none of is missing in the answer
-- Returns  a row of ``StoredRequest`` for each, in the order of their ids
--
-- Within a writing transaction it comes after the lock, in a statement of its own: PostgreSQL's default isolation lets each
-- statement see what was committed before it began, so what waited for the lock would see the request as it is and the rest as it was.
--
-- That an offer is open is asked in a way that no index answers: a planner whose statistics are from a quiet hour, or that has
-- none, believes that hardly any is, and reads all those of a rush hour to find a few.
SELECT
  r.id, r.version, r.checkout_id, r.customer_id, customer.name, r.plan_id, r.session_type, r.duration_min, r.price_cents,
  r.routing_type, r.preferred_mechanic_id, preferred.name, r.assigned_mechanic_id, assigned.name, r.status, r.fallback_reason,
  r.priority_offer_id, r.created_at_ms, r.accepted_at_ms, r.started_at_ms, r.completed_at_ms, r.settled_at_ms,
  o.id, o.kind, o.mechanic_id, o.opened_at_ms, o.expires_at_ms,
  c.price_cents, c.currency, c.note, c.payment_intent_id, refund.status, refund.amount_cents,
  EXISTS (SELECT 1 FROM favorites f WHERE f.customer_id = r.customer_id AND f.mechanic_id = r.assigned_mechanic_id),
  EXISTS (SELECT 1 FROM push_subscriptions s WHERE s.mechanic_id = r.customer_id AND s.set_aside_at_ms IS NULL),
  (
    SELECT coalesce(json_agg(e.mechanic_id), '[]')                                               -- postgresql
    SELECT json_group_array(e.mechanic_id)                                                       -- sqlite
    FROM exclusions e WHERE e.request_id = r.id
  ),
  (
    SELECT coalesce(json_agg(json_build_array(t.id, t.at_ms, t.event, t.details, m.name)), '[]')  -- postgresql
    SELECT json_group_array(json_array(t.id, t.at_ms, t.event, json(t.details), m.name))          -- sqlite
    FROM timeline t
    LEFT JOIN accounts m ON m.id = t.details ->> 'mechanic_id'                                   -- postgresql
    LEFT JOIN accounts m ON m.id = json_extract(t.details, '$.mechanic_id')                      -- sqlite
    WHERE t.request_id = r.id
  )
FROM session_requests r
JOIN accounts customer ON customer.id = r.customer_id
JOIN checkouts c ON c.id = r.checkout_id
LEFT JOIN accounts preferred ON preferred.id = r.preferred_mechanic_id
LEFT JOIN accounts assigned ON assigned.id = r.assigned_mechanic_id
LEFT JOIN offers o ON o.request_id = r.id AND coalesce(o.closed_at_ms, -1) = -1
LEFT JOIN refunds refund ON refund.request_id = r.id
WHERE r.id = ANY (:ids)                              -- postgresql
WHERE r.id IN (SELECT value FROM json_each(:ids))    -- sqlite
ORDER BY r.id
