-- Write down a refund or a dispute as Stripe has it now.
--
-- :id, :payment_intent_id, :kind, :amount_cents, :status, :is_ours, :is_refundable
INSERT INTO ledger_entries (id, payment_intent_id, kind, amount_cents, status, is_ours, is_refundable)
VALUES (:id, :payment_intent_id, :kind, :amount_cents, :status, :is_ours, :is_refundable)
ON CONFLICT (id) DO UPDATE
SET amount_cents = excluded.amount_cents, status = excluded.status, is_ours = excluded.is_ours,
    is_refundable = excluded.is_refundable
