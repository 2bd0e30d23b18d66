-- A page of somebody's requests, the newest first.
--
-- :account_id, :status (NULL: any), :before (an id; NULL: from the newest on), :limit
SELECT id FROM session_requests
WHERE assigned_mechanic_id = :account_id AND status = coalesce(:status, status) AND id < coalesce(:before, '~')
ORDER BY id DESC
LIMIT :limit
