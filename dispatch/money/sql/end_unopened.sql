-- End checkouts that never got a page to pay on.
--
-- :before_ms  when their time was over at the latest
-- Returns  the ids
--
-- SQLite is told by which index: it keeps no statistics, and takes those without a page, or whose time is over, for few.
UPDATE checkouts SET status = 'expired'                                -- postgresql
UPDATE checkouts INDEXED BY ix_checkouts_open SET status = 'expired'   -- sqlite
WHERE status = 'open' AND stripe_session_id IS NULL AND expires_at_ms < :before_ms
RETURNING id
