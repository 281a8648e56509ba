package central

import (
	"log/slog"
	"testing"
	"time"

	"rackpower/central/api"
	"rackpower/central/store"
	"rackpower/central/webhook"
)

// TestAWebhookGoesOnWhereItEnded: over a restart, but not over a start without it.
func TestAWebhookGoesOnWhereItEnded(t *testing.T) {
	cfg := Config{Data: t.TempDir(), Log: slog.New(slog.DiscardHandler)}
	to := webhook.Config{URL: "https://receiver.example/", Secret: make([]byte, webhook.MinSecret)}
	from := func(with webhook.Config) (id int64, found bool) {
		t.Helper()
		cfg.Webhook = with
		c, err := New(cfg)
		if err != nil {
			t.Fatal(err)
		}
		defer c.Close()
		err = c.store.View(t.Context(), func(tx *store.Tx) (err error) {
			id, found, err = tx.WebhookPassed()
			return err
		})
		if err != nil {
			t.Fatal(err)
		}
		c.auditRefusal(t.Context(), api.AuditEntry{At: time.Now(), Who: "somebody"})
		return id, found
	}
	if id, found := from(webhook.Config{}); found {
		t.Errorf("without a webhook: %d", id)
	}
	first, found := from(to)
	if !found || first == 0 {
		t.Errorf("it begins behind %d, %v", first, found)
	}
	if again, _ := from(to); again != first {
		t.Errorf("after a restart it goes on behind %d, was %d", again, first)
	}
	from(webhook.Config{})
	if later, _ := from(to); later != first+3 {
		t.Errorf("after a start without it begins behind %d, want %d", later, first+3)
	}
}
