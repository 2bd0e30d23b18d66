-- How many requests have been settled since an instant, by what they have become.
--
-- :since_ms
--
-- With the plus SQLite does not go through all there are in the order of their statuses.
SELECT status, count(*) FROM session_requests
WHERE settled_at_ms IS NOT NULL AND settled_at_ms >= :since_ms
GROUP BY status     -- postgresql
GROUP BY +status    -- sqlite
