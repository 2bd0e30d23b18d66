-- Push services that have taken messages, those that were last of use first.
--
-- :limit
SELECT place FROM push_subscriptions
WHERE last_used_at_ms IS NOT NULL AND place IS NOT NULL
GROUP BY place
ORDER BY max(last_used_at_ms) DESC
LIMIT :limit
