-- Write down, before Stripe is asked, what it is asked for under a refund's idempotency key: repeated after a crash, it must be the
-- same.
--
-- :id, :key_number (as it was read), :cents
-- Returns  what is to be asked for: of a key that was used before, what was asked for then. No row: the key is used up
UPDATE refunds SET asked_cents = coalesce(asked_cents, :cents) WHERE id = :id AND key_number = :key_number RETURNING id, asked_cents
