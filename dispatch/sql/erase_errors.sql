-- Forget what has gone wrong with a customer's requests: nobody knows what an error quotes.
--
-- :account_id
UPDATE session_requests SET last_error = NULL WHERE customer_id = :account_id AND last_error IS NOT NULL
