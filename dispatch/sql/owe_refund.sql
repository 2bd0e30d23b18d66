-- Owe everything that was paid; unique for each checkout, so that a second refund is impossible.
--
-- :id, :checkout_id, :request_id (NULL: never dispatched), :payment_intent_id, :amount_cents, :currency, :cause, :at_ms
-- :status, :next_attempt_at_ms, :settled_at_ms (one of the two is NULL; the first one: others have given it back already)
INSERT INTO refunds
  (id, checkout_id, request_id, payment_intent_id, amount_cents, currency, cause, status, attempts, next_attempt_at_ms,
   created_at_ms, settled_at_ms, failures)
VALUES
  (:id, :checkout_id, :request_id, :payment_intent_id, :amount_cents, :currency, :cause, :status, 0, :next_attempt_at_ms, :at_ms, :settled_at_ms, 0)
