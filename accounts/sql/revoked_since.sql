-- What has been revoked, or changed of that, since a stamp: all of it for 0.
--
-- :since_ms    :now_ms  single tokens that have ended by then are left out
-- Returns  a row of the list that nodes keep in memory, and its stamp
SELECT id, account_id, up_to_ms, is_disabled, token_expires_at_ms, changed_at_ms FROM revocations
WHERE changed_at_ms >= :since_ms AND (token_expires_at_ms IS NULL OR token_expires_at_ms > :now_ms)
ORDER BY changed_at_ms
