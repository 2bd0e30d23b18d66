-- Let a request not have used its customer's right to a free session any more: for the first who says so.
--
-- :request_id  of a request that cost nothing
-- Returns  whose right it is; no row if it has not used it, or has given it back already
--
-- A node of an earlier version notes nothing: what is for the first time only has used the right then.
UPDATE session_requests SET used_free_session = false
WHERE id = :request_id
  AND coalesce(used_free_session, EXISTS (SELECT 1 FROM plans p WHERE p.id = plan_id AND p.first_time_only))
RETURNING customer_id
