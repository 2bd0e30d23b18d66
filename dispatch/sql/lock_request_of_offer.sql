-- Take the row of the request that an offer is of, on behalf of a mechanic.
--
-- :offer_id, :mechanic_id
-- Returns  the request's id, whom the offer is for (NULL: everyone), why it closed (NULL: it is open, or was before whoever held the
--          lock), who took it (NULL: nobody, or not known), the mechanic's name and what they have switched off; no row if there is
--          no such offer
-- Locks  the request's row, see ``lock_requests``
SELECT r.id, o.mechanic_id, o.close_reason, o.taken_by_id, a.name, coalesce(m.session_types_off, '')
FROM offers o
JOIN session_requests r ON r.id = o.request_id
JOIN accounts a ON a.id = :mechanic_id
LEFT JOIN mechanics m ON m.id = a.id
WHERE o.id = :offer_id
FOR NO KEY UPDATE OF r                             -- postgresql
