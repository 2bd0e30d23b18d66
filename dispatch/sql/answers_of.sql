-- How mechanics answered their priority offers, the newest of each; what a customer ended was not theirs to answer, nor what ran
-- out while they were in a session.
--
-- :mechanic_ids, :since_ms, :each (of one mechanic at most)
SELECT mechanic_id, close_reason, closed_at_ms - opened_at_ms FROM (
  SELECT
    o.mechanic_id, o.close_reason, o.closed_at_ms, o.opened_at_ms,
    row_number() OVER (PARTITION BY o.mechanic_id ORDER BY o.opened_at_ms DESC) AS place
  FROM offers o
  WHERE o.closed_at_ms IS NOT NULL AND o.mechanic_id IS NOT NULL AND o.opened_at_ms >= :since_ms
    AND o.close_reason IN ('taken', 'declined', 'expired') AND NOT (o.close_reason = 'expired' AND o.mechanic_is_busy)
    AND o.mechanic_id = ANY (:mechanic_ids)                              -- postgresql
    AND o.mechanic_id IN (SELECT value FROM json_each(:mechanic_ids))    -- sqlite
) AS answers
WHERE place <= :each
