-- Let an account's tokens be refused whenever they are issued, or no longer. There is a row of it: its tokens have just been revoked.
--
-- :id  of the revocation    :is_disabled    :at_ms
UPDATE revocations SET is_disabled = :is_disabled, changed_at_ms = :at_ms WHERE id = :id
