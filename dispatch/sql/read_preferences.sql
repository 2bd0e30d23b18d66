-- Which sessions a mechanic does not take, and whether open requests may wake them.
--
-- :mechanic_id
SELECT session_types_off, push_broadcasts FROM mechanics WHERE id = :mechanic_id
