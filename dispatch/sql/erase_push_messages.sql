-- Forget messages to others that name somebody: about a customer's requests, and, of a mechanic, those that have been sent.
--
-- :account_id    :naming  a pattern: it stands in a message's text
-- What names a mechanic and is still to be sent is about somebody else's request, and goes when it has been.
DELETE FROM push_messages
WHERE about_id IN (SELECT r.id FROM session_requests r WHERE r.customer_id = :account_id)
   OR about_id IN (
     SELECT o.id FROM session_requests r JOIN offers o ON o.request_id = r.id WHERE r.customer_id = :account_id
   )
   OR (done_at_ms IS NOT NULL AND payload LIKE :naming)
