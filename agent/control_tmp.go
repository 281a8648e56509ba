package agent

import (
	"context"
	"net"
)

func (a *Agent) serveControl(ctx context.Context, l net.Listener) {}
