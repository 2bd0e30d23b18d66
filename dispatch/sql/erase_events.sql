-- Forget what Stripe has said of somebody: a node of an earlier version keeps events whole. Reads all events; nobody is erased often.
--
-- :email  a pattern, with a backslash before what stands for itself
UPDATE stripe_events SET payload = '{}' WHERE lower(CAST(payload AS TEXT)) LIKE :email ESCAPE '\'
