-- The currency that plans are sold in.
SELECT currency FROM plans ORDER BY position, id LIMIT 1
