package powerman

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"strings"
	"sync"
	"time"

	"rackpower/internal/backoff"
)

// maxClients bounds the connections at once; those beyond are closed and logged.
const maxClients = 256

// acceptPause is how long is waited after a connection could not be taken.
const acceptPause = 100 * time.Millisecond

// Serve serves the clients that connect until ctx ends, and then closes their
// connections. What they have asked for goes on. It closes l.
func Serve(ctx context.Context, l net.Listener, cfg Config) error {
	defer context.AfterFunc(ctx, func() { l.Close() })()
	defer l.Close()
	var clients sync.WaitGroup
	defer clients.Wait()
	places := make(chan struct{}, maxClients)
	for {
		conn, err := l.Accept()
		switch {
		case ctx.Err() != nil:
			if err == nil {
				conn.Close()
			}
			return nil
		case errors.Is(err, net.ErrClosed):
			return err
		case err != nil:
			cfg.Logger.Warn("cannot take a connection", "err", err)
			_ = backoff.Sleep(ctx, acceptPause)
			continue
		}
		select {
		case places <- struct{}{}:
		default:
			cfg.Logger.Warn("a connection was refused: there are too many", "peer", conn.RemoteAddr().String(), "most", maxClients)
			conn.Close()
			continue
		}
		clients.Go(func() {
			defer func() { <-places }()
			defer conn.Close()
			defer context.AfterFunc(ctx, func() { conn.Close() })()
			if err := Converse(ctx, conn, conn, conn.RemoteAddr().String(), cfg); err != nil && ctx.Err() == nil {
				cfg.Logger.Info("a client left", "peer", conn.RemoteAddr().String(), "err", err)
			}
		})
	}
}

// Converse serves one client, which peer names in the audit log, until it quits, its input
// ends or ctx does. Commands that were sent before the input ended are carried out and answered.
func Converse(ctx context.Context, in io.Reader, out io.Writer, peer string, cfg Config) error {
	c := &client{Config: cfg, peer: peer}
	r := bufio.NewReaderSize(in, MaxLine)
	if _, err := fmt.Fprintf(out, "001 %s\r\n%s", cfg.Version, prompt); err != nil {
		return err
	}
	for ctx.Err() == nil {
		line, err := readLine(r)
		var lines []string
		quit := false
		switch {
		case errors.Is(err, bufio.ErrTooLong):
			lines = []string{tooLong}
		case errors.Is(err, io.EOF):
			return nil // a line that was cut off may name other nodes than were meant
		case err != nil:
			return err
		default:
			lines, quit = c.answer(ctx, line)
		}
		text := strings.Join(lines, "\r\n") + "\r\n"
		if !quit {
			text += prompt
		}
		if _, err := io.WriteString(out, text); err != nil || quit {
			return err
		}
	}
	return nil
}

// readLine reads a line. One that is longer than the reader's buffer is dropped to its
// end, and is bufio.ErrTooLong.
func readLine(r *bufio.Reader) (string, error) {
	line, err := r.ReadSlice('\n')
	if !errors.Is(err, bufio.ErrBufferFull) {
		return string(line), err
	}
	for errors.Is(err, bufio.ErrBufferFull) {
		_, err = r.ReadSlice('\n')
	}
	if err != nil {
		return "", err
	}
	return "", bufio.ErrTooLong
}
