-- When the next message is to be sent that is not due yet, of the push services that ``due_messages`` is asked for.
--
-- :now_ms, :places, :only  as there
-- Returns  the instant, ms; NULL if there is none
SELECT min(due_at_ms) FROM push_messages
WHERE done_at_ms IS NULL AND due_at_ms > :now_ms
  AND (place = ANY (:places)) = :only                                  -- postgresql
  AND (place IN (SELECT value FROM json_each(:places))) = :only        -- sqlite
