-- Whether mechanics want to be asked, for what, and what they are busy with.
--
-- :ids  mechanics; who is none is missing in the answer
SELECT
  id, on_duty, active_request_id, facts_version, session_types_off, back_at_ms,
  coalesce(off_after_request_id, '-') = coalesce(active_request_id, '')
FROM mechanics
WHERE id = ANY (:ids)                              -- postgresql
WHERE id IN (SELECT value FROM json_each(:ids))    -- sqlite
