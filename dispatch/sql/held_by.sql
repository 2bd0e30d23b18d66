-- What a mechanic holds: a priority offer that is open, or a request that they have accepted and not started.
--
-- :mechanic_id
-- Returns  the offer's id, or none, and the request's
SELECT o.id, o.request_id FROM offers o WHERE o.mechanic_id = :mechanic_id AND o.closed_at_ms IS NULL
UNION ALL
SELECT NULL, r.id FROM session_requests r WHERE r.assigned_mechanic_id = :mechanic_id AND r.status = 'accepted'
