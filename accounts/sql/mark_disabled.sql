-- Let an account's tokens be refused whenever they are issued, or no longer. Its tokens have just been revoked, in this transaction:
-- there is a row, and it has its stamp.
--
-- :id  of the revocation    :is_disabled
UPDATE revocations SET is_disabled = :is_disabled WHERE id = :id
