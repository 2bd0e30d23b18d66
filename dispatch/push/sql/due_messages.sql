-- Messages that are to be sent, of push services that are not being sent to just now: of each a few, the oldest first.
--
-- :now_ms, :limit
-- :places     push services to leave out, or to keep to (:only)
-- :only       whether it is only these
-- :each       of one push service at most
SELECT id, place FROM (
  SELECT id, place, due_at_ms, row_number() OVER (PARTITION BY place ORDER BY due_at_ms, id) AS turn
  FROM push_messages
  WHERE done_at_ms IS NULL AND due_at_ms <= :now_ms
    AND (place = ANY (:places)) = :only                                  -- postgresql
    AND (place IN (SELECT value FROM json_each(:places))) = :only        -- sqlite
) due
WHERE turn <= :each
ORDER BY turn, due_at_ms, id
LIMIT :limit
