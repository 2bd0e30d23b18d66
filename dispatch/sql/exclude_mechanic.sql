-- Never ask a mechanic for this request again.
--
-- :request_id, :mechanic_id, :because, :at_ms
INSERT INTO exclusions (request_id, mechanic_id, because, at_ms) VALUES (:request_id, :mechanic_id, :because, :at_ms)
