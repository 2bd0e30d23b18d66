-- Never ask a mechanic for this request again.
--
-- :request_id, :mechanic_id, :because
INSERT INTO exclusions (request_id, mechanic_id, because) VALUES (:request_id, :mechanic_id, :because)
