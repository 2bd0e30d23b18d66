-- Whose time limits these are, whoever holds their rows.
--
-- :limit_ids
-- Returns  each limit's id, and its request's, of those limits that there are
SELECT limit_id, id FROM session_requests
WHERE limit_id = ANY (:limit_ids)                              -- postgresql
WHERE limit_id IN (SELECT value FROM json_each(:limit_ids))    -- sqlite
