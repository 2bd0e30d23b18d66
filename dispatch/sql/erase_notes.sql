-- Forget what a customer has written with their checkouts, and the words by which their programs knew them.
--
-- :account_id
UPDATE checkouts SET note = NULL, idempotency_key = NULL, idempotency_hash = NULL
WHERE customer_id = :account_id AND (note IS NOT NULL OR idempotency_key IS NOT NULL)
