-- Whether a customer has paid for the same choice on another page that was open beside this one, and is being served or was.
--
-- Whoever was served before this page was opened wants another session; who was served after that has paid on an older page as well.
--
-- :checkout_id
-- Returns  the other request's id; no row: this is the only one
SELECT r.id
FROM checkouts c
JOIN checkouts other
  ON other.customer_id = c.customer_id AND other.plan_id = c.plan_id AND other.routing_type = c.routing_type
  AND coalesce(other.preferred_mechanic_id, '') = coalesce(c.preferred_mechanic_id, '') AND other.id <> c.id
JOIN session_requests r ON r.checkout_id = other.id
WHERE c.id = :checkout_id AND r.created_at_ms > c.created_at_ms AND r.status NOT IN ('cancelled', 'unfilled')
LIMIT 1
