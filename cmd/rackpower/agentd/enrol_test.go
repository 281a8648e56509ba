package agentd

import (
	"context"
	"encoding/json"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"rackpower/central/api"
)

// A central that is not trusted cannot have an agent gossip with keys of its own.
func TestNoKeyIsTakenFromAnUntrustedCentral(t *testing.T) {
	srv := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		_ = json.NewEncoder(w).Encode(api.Enrolled{Database: api.Database{CentralID: "c2"}, Keys: []string{"MDEyMzQ1Njc4OWFiY2RlZjAxMjM0NTY3ODlhYmNkZWY="}})
	}))
	defer srv.Close()
	client, err := api.NewClient(srv.URL)
	if err != nil {
		t.Fatal(err)
	}
	defer client.Close()
	for id, ok := range map[string]bool{"c1": false, "c2": true} {
		keys, _, err := askKeys(context.Background(), "r1", func(db api.Database) bool { return db.CentralID == id }, client)
		if ok != (err == nil && len(keys) == 1) || !ok && !strings.Contains(err.Error(), "rackpower local trust") {
			t.Errorf("trusting %s: %v, %v", id, keys, err)
		}
	}
}

func TestAgentWaitsForItsKey(t *testing.T) {
	for text, want := range map[string]string{
		`{"keys":["aGVsbG8="]}`: "5 bytes", `{"keys":[]}`: "without a key",
	} {
		srv := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { _, _ = w.Write([]byte(text)) }))
		client, err := api.NewClient(srv.URL)
		if err != nil {
			t.Fatal(err)
		}
		ctx, cancel := context.WithTimeout(t.Context(), 5*time.Second)
		if _, _, err := askKeys(ctx, "r1", everyCentral, client); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: %v", text, err)
		}
		cancel()
		client.Close()
		srv.Close()
	}
}
