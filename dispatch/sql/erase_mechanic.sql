-- Let a mechanic get no session any more; does nothing to a customer.
--
-- :account_id
-- Locks  the row that an accept has to write, before it is looked whether there was one.
UPDATE mechanics SET is_disabled = true, back_at_ms = NULL WHERE id = :account_id
