-- Forget where an account is signed in, but for one place.
--
-- :account_id    :kept_id  of the one that stays; empty for none
DELETE FROM sign_ins WHERE account_id = :account_id AND id <> :kept_id
