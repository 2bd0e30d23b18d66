-- Close an offer. It is open: its request's row has just been moved on from where that was read.
--
-- :id, :at_ms, :reason, :taken_by_id (NULL: nobody)
UPDATE offers SET closed_at_ms = :at_ms, close_reason = :reason, taken_by_id = :taken_by_id WHERE id = :id
