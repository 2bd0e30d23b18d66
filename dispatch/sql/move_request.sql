-- Move a request on, if it is still where it was read: whoever's update finds the row has won.
--
-- :id, :version, :status_before  as they were read
-- :status, :assigned_mechanic_id, :fallback_reason, :accepted_at_ms, :started_at_ms, :completed_at_ms, :settled_at_ms, :limit_id,
-- :limit_of_ms, :limit_expires_at_ms, :limit_rings_at_ms  what it gets
-- Returns  the id, or no row: somebody else was faster
--
-- What is counted of failures was about where it stood before: whatever becomes of it now begins anew.
UPDATE session_requests
SET version = version + 1, status = :status, assigned_mechanic_id = :assigned_mechanic_id, fallback_reason = :fallback_reason,
    accepted_at_ms = :accepted_at_ms, started_at_ms = :started_at_ms, completed_at_ms = :completed_at_ms,
    settled_at_ms = :settled_at_ms, limit_id = :limit_id, limit_of_ms = :limit_of_ms,
    limit_expires_at_ms = :limit_expires_at_ms, limit_rings_at_ms = :limit_rings_at_ms,
    failures = 0, last_error = NULL, set_aside_at_ms = NULL
WHERE id = :id AND version = :version AND status = :status_before
RETURNING id
