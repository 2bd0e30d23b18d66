-- Let nobody use an account any more, and have everything that counts on it let go of it.
--
-- :id    :at_ms
-- Returns  its id; no row if that is so already, or if there is no such account
UPDATE accounts SET disabled_at_ms = :at_ms, departing_since_ms = :at_ms WHERE id = :id AND disabled_at_ms IS NULL
RETURNING id
