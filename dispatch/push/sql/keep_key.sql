-- Keep a key for good; one that is there already stays.
--
-- :name, :value (base64), :at_ms
INSERT INTO kept_keys (name, value, created_at_ms) VALUES (:name, :value, :at_ms)
ON CONFLICT (name) DO NOTHING
