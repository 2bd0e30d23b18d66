-- Move a request on, if it is still where it was read: whoever's update finds the row has won.
--
-- :id, :version, :status_before  as they were read
-- :status, :assigned_mechanic_id, :fallback_reason, :accepted_at_ms, :started_at_ms, :completed_at_ms, :settled_at_ms  what it gets
-- Returns  the id, or no row: somebody else was faster
UPDATE session_requests
SET version = version + 1, status = :status, assigned_mechanic_id = :assigned_mechanic_id, fallback_reason = :fallback_reason,
    accepted_at_ms = :accepted_at_ms, started_at_ms = :started_at_ms, completed_at_ms = :completed_at_ms,
    settled_at_ms = :settled_at_ms
WHERE id = :id AND version = :version AND status = :status_before
RETURNING id
