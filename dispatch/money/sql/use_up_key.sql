-- Count that Stripe has answered a refund's key with an error; the last time that it may, the key is used up and the next one begins.
--
-- :id, :key_number (as it was read), :errors_max (1: it is used up now)
UPDATE refunds
SET key_number = CASE WHEN key_errors + 1 >= :errors_max THEN key_number + 1 ELSE key_number END,
    asked_cents = CASE WHEN key_errors + 1 >= :errors_max THEN NULL ELSE asked_cents END,
    key_errors = CASE WHEN key_errors + 1 >= :errors_max THEN 0 ELSE key_errors + 1 END
WHERE id = :id AND key_number = :key_number
