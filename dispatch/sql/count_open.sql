-- How many requests are open, by where they stand; for the plus see ``count_settled.sql``.
SELECT status, count(*) FROM session_requests
WHERE settled_at_ms IS NULL
GROUP BY status     -- postgresql
GROUP BY +status    -- sqlite
