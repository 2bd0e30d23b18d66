-- Accounts that are still to be let go of, the longest first.
--
-- :limit
-- Returns  their ids, and since when
SELECT id, departing_since_ms FROM accounts WHERE departing_since_ms IS NOT NULL ORDER BY departing_since_ms LIMIT :limit
