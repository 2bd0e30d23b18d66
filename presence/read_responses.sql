-- How mechanics usually answer, as it was counted since.
--
-- :since_ms, :after_id, :limit  from then on, in this order
SELECT mechanic_id, offers, accept_percent, answers_within_s, counted_at_ms
FROM mechanic_responses
WHERE (counted_at_ms, mechanic_id) > (:since_ms, :after_id)
ORDER BY counted_at_ms, mechanic_id
LIMIT :limit
