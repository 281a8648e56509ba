package central

import (
	"context"

	"rackpower/central/api"
	"rackpower/central/store"
	"rackpower/central/webhook"
)

// webhookLog is the audit log as a webhook sends it.
type webhookLog struct{ c *Central }

var _ webhook.Log = webhookLog{}

// Database names the database.
func (l webhookLog) Database() api.Database { return l.c.store.Database() }

// Begin is from where on events are sent: at the very first from now on.
func (l webhookLog) Begin(ctx context.Context) (id int64, err error) {
	err = l.c.store.Write(ctx, func(tx *store.Tx) error {
		var found bool
		if id, found, err = tx.WebhookPassed(); err != nil || found {
			return err
		}
		if id, err = tx.LastAudit(); err != nil {
			return err
		}
		return tx.PassWebhook(id)
	})
	return id, err
}

// After are the first events behind the id.
func (l webhookLog) After(ctx context.Context, id int64, limit int) (all []api.AuditEntry, err error) {
	err = l.c.store.View(ctx, func(tx *store.Tx) error {
		all, err = tx.AuditAfter(store.AuditFilter{}, id, limit)
		return err
	})
	return all, err
}

// Passed notes that events were sent.
func (l webhookLog) Passed(ctx context.Context, id int64) error {
	return l.c.store.Write(ctx, func(tx *store.Tx) error { return tx.PassWebhook(id) })
}

// News is closed when there are more events.
func (l webhookLog) News() <-chan struct{} {
	_, news := l.c.audited.look()
	return news
}

// beginWebhook makes the sender of the webhook, and notes where its events begin before anything
// else happens. Without one it is forgotten how far an earlier one came.
func (c *Central) beginWebhook() (err error) {
	ctx := context.Background()
	if c.cfg.Webhook.URL == "" {
		return c.store.Write(ctx, func(tx *store.Tx) error {
			if _, found, err := tx.WebhookPassed(); err != nil || !found {
				return err
			}
			return tx.EndWebhook()
		})
	}
	cfg := c.cfg.Webhook
	cfg.Log, cfg.Now = c.log, c.cfg.Now
	if c.webhook, err = webhook.New(cfg, webhookLog{c}); err != nil {
		return err
	}
	_, err = webhookLog{c}.Begin(ctx)
	return err
}
