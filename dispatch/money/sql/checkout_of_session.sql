-- The checkout that a Checkout Session of Stripe's is of: by the Session's id; or by the reference that we gave it, if we died
-- between creating it and storing its id.
--
-- :stripe_session_id, :reference (NULL: there is none)
SELECT id, price_cents, currency FROM checkouts
WHERE stripe_session_id = :stripe_session_id OR (id = :reference AND stripe_session_id IS NULL)
ORDER BY stripe_session_id IS NULL
LIMIT 1
