-- Whether a token is refused, as RevokedList.covers tells of what a node knows already.
--
-- :account_revocation    :token_revocation    :sign_in_revocation  ids of revocations that would be of it
-- :issued_at_ms
-- Returns  the revocation's id; no row if it is good
SELECT id FROM revocations
WHERE (id = :account_revocation AND (is_disabled OR up_to_ms >= :issued_at_ms))
   OR id = :token_revocation OR id = :sign_in_revocation
