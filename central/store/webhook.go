package store

import "fmt"

const (
	sqlWebhookPassed = `SELECT webhook_passed FROM meta`
	sqlPassWebhook   = `UPDATE meta SET webhook_passed = $1`
)

// noWebhook is the id of an entry while there is no webhook.
const noWebhook = -1

// WebhookPassed is the id of the last entry of the audit log that need not be sent to the webhook's
// receiver any more; found is false while there is no webhook.
func (t *Tx) WebhookPassed() (id int64, found bool, err error) {
	if err := t.row(sqlWebhookPassed).Scan(&id); err != nil {
		return 0, false, fmt.Errorf("cannot read how far the webhook came: %w", disk(err))
	}
	return id, id != noWebhook, nil
}

// PassWebhook notes it.
func (t *Tx) PassWebhook(id int64) error {
	if _, err := t.exec(sqlPassWebhook, id); err != nil {
		return fmt.Errorf("cannot note how far the webhook came: %w", err)
	}
	return nil
}

// EndWebhook forgets how far the webhook came: one that begins later sends only what happens then.
func (t *Tx) EndWebhook() error { return t.PassWebhook(noWebhook) }
