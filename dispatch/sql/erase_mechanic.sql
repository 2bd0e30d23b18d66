-- Let a mechanic get no session any more; does nothing to a customer.
--
-- :account_id
UPDATE mechanics SET is_disabled = true, back_at_ms = NULL WHERE id = :account_id
