-- Keep how a mechanic usually answers, in place of what was counted before.
--
-- :mechanic_id, :offers, :accept_percent, :answers_within_s, :now_ms
INSERT INTO mechanic_responses (mechanic_id, offers, accept_percent, answers_within_s, counted_at_ms)
VALUES (:mechanic_id, :offers, :accept_percent, :answers_within_s, :now_ms)
ON CONFLICT (mechanic_id) DO UPDATE SET
  offers = excluded.offers, accept_percent = excluded.accept_percent, answers_within_s = excluded.answers_within_s,
  counted_at_ms = excluded.counted_at_ms
