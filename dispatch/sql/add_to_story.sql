-- Add a line to a request's story.
--
-- :request_id, :at_ms, :event, :details (JSON)
INSERT INTO timeline (request_id, at_ms, event, details) VALUES (:request_id, :at_ms, :event, :details)
