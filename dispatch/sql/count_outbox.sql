-- How much is left to tell; what is told is deleted.
SELECT 'outbox', count(*) FROM outbox
