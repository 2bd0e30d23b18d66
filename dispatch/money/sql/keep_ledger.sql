-- Write down a payment's ledger, if nobody has since it was read: whoever finds no row asks Stripe anew.
--
-- :payment_intent_id, :checkout_id
-- :seen  the version that was read; 0: there was none
-- :paid_cents, :by_us_cents, :by_others_cents, :on_its_way_cents, :taken_cents, :dispute, :is_unsettled, :at_ms  what it gets
-- Returns  the id of its PaymentIntent, or no row
-- Locks  its row, after the request's; the refund's comes after it
INSERT INTO ledgers
  (payment_intent_id, checkout_id, version, paid_cents, by_us_cents, by_others_cents, on_its_way_cents, taken_cents, dispute,
   is_unsettled, looked_at_ms)
VALUES
  (:payment_intent_id, :checkout_id, :seen + 1, :paid_cents, :by_us_cents, :by_others_cents, :on_its_way_cents, :taken_cents,
   :dispute, :is_unsettled, :at_ms)
ON CONFLICT (payment_intent_id) DO UPDATE
SET version = ledgers.version + 1, by_us_cents = excluded.by_us_cents, by_others_cents = excluded.by_others_cents,
    on_its_way_cents = excluded.on_its_way_cents, taken_cents = excluded.taken_cents, dispute = excluded.dispute,
    is_unsettled = excluded.is_unsettled, looked_at_ms = excluded.looked_at_ms
WHERE ledgers.version = excluded.version - 1
RETURNING payment_intent_id
