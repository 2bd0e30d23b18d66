-- The request that a refund is of.
--
-- :id (of the refund, or of its request)
-- Returns  its id; no row if there is none
SELECT request_id FROM refunds WHERE (id = :id OR request_id = :id) AND request_id IS NOT NULL
