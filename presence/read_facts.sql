-- What presence needs to know of mechanics.
--
-- :ids  mechanics; who is none is missing in the answer
-- Returns  a row of ``Facts`` for each. Whether they are busy is not asked by IS NOT NULL, here and in dispatch's statements that
--          return the same: in the RETURNING of an UPDATE, SQLite 3.40 answers that with true for NULL.
SELECT
  id, facts_version, on_duty, coalesce(active_request_id, '') <> '', has_push, last_seen_at_ms, session_types_off, back_at_ms,
  coalesce(off_after_request_id, '-') = coalesce(active_request_id, '')
FROM mechanics
WHERE id = ANY (:ids)                              -- postgresql
WHERE id IN (SELECT value FROM json_each(:ids))    -- sqlite
