-- Forget whose an account was, and let nobody use it any more.
--
-- :id    :name  that it has from now on    :email  that is none    :at_ms
-- Returns  its id; no row if that is so already
UPDATE accounts SET
  name = :name, email = :email, password_hash = NULL, erased_at_ms = :at_ms, departing_since_ms = :at_ms,
  disabled_at_ms = coalesce(disabled_at_ms, :at_ms)
WHERE id = :id AND erased_at_ms IS NULL
RETURNING id
