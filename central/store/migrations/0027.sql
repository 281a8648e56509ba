-- How far the audit log was sent to the receiver of the webhook.
ALTER TABLE meta ADD COLUMN webhook_passed INTEGER NOT NULL DEFAULT -1; -- id of the last entry that need not be sent; -1: there is no webhook
