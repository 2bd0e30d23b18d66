-- Let a mechanic get no session any more, or again; does nothing to a customer.
--
-- :id    :is_disabled
-- In the row that an accept has to write: of the two, the later one sees what the other has done.
UPDATE mechanics SET is_disabled = :is_disabled WHERE id = :id
