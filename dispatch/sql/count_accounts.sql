-- How many accounts have been made since an instant, by their roles.
--
-- :since_id  the least id of then
SELECT role, count(*) FROM accounts WHERE id >= :since_id GROUP BY role
