-- Take the rows of the requests whose time limits are to be looked at.
--
-- :limit_ids
-- Returns  each limit's id and its request's, of those requests that nobody else holds: nobody's slowness is to hold up others
-- Locks  the requests' rows, see ``lock_requests``
SELECT limit_id, id FROM session_requests
WHERE limit_id = ANY (:limit_ids)                              -- postgresql
WHERE limit_id IN (SELECT value FROM json_each(:limit_ids))    -- sqlite
ORDER BY id
FOR NO KEY UPDATE SKIP LOCKED                                  -- postgresql
