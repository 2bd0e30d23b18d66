-- Have whoever signs in or renews a token wait until the transaction ends; then they see what it has revoked.
--
-- :id
-- Locks  the account's row. On SQLite the writing transaction is lock enough.
SELECT id FROM accounts WHERE id = :id
FOR NO KEY UPDATE                          -- postgresql
