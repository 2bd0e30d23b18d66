-- Make the request of a checkout that has been paid; unique for each checkout, so that a second one is impossible.
--
-- :id, :checkout_id, :version, :status, :priority_offer_id, :paid_cents, :at_ms, :settled_at_ms
--
-- What costs nothing and was never at Stripe has used its customer's right to a free session, if its plan takes that.
INSERT INTO session_requests
  (id, version, checkout_id, customer_id, plan_id, session_type, duration_min, price_cents, currency, routing_type,
   preferred_mechanic_id, status, priority_offer_id, created_at_ms, settled_at_ms,
   used_free_session)
SELECT
  :id, :version, c.id, c.customer_id, c.plan_id, c.session_type, c.duration_min, :paid_cents, c.currency, c.routing_type,
  c.preferred_mechanic_id, :status, :priority_offer_id, :at_ms, :settled_at_ms,
  c.price_cents = 0 AND c.stripe_session_id IS NULL
    AND EXISTS (SELECT 1 FROM plans p WHERE p.id = c.plan_id AND p.first_time_only)
FROM checkouts c WHERE c.id = :checkout_id
