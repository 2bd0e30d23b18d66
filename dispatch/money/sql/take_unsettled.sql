-- Take some payments of which something is on its way, or a dispute open, and that were not looked at lately: whoever takes them looks,
-- and nobody else meanwhile.
--
-- :looked_before_ms, :at_ms, :limit
-- Returns  the ids of their PaymentIntents
UPDATE ledgers SET looked_at_ms = :at_ms
WHERE payment_intent_id IN (
  SELECT payment_intent_id FROM ledgers WHERE is_unsettled AND looked_at_ms < :looked_before_ms ORDER BY looked_at_ms LIMIT :limit
) AND looked_at_ms < :looked_before_ms
RETURNING payment_intent_id
