-- End a checkout that nobody has paid.
--
-- :id, :status
-- Returns  the id; no row if it has ended already
UPDATE checkouts SET status = :status WHERE id = :id AND status = 'open' RETURNING id
