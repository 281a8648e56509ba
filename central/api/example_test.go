package api_test

import (
	"context"
	"fmt"
	"log"
	"log/slog"
	"net"
	"os"
	"path/filepath"

	"rackpower/central"
	"rackpower/central/api"
)

// serve runs a central in a directory of its own, and says where its socket is.
func serve() (socket string, stop func()) {
	dir, err := os.MkdirTemp("", "rackpower")
	if err != nil {
		log.Fatal(err)
	}
	socket = filepath.Join(dir, "central.sock")
	c, err := central.New(central.Config{Data: dir, Socket: socket, Log: slog.New(slog.DiscardHandler)})
	if err != nil {
		log.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	ready, ended := make(chan struct{}), make(chan error)
	go func() { ended <- c.RunReady(ctx, func([]net.Addr) { close(ready) }) }()
	<-ready
	return socket, func() {
		cancel()
		<-ended
		os.RemoveAll(dir)
	}
}

func ExampleClient() {
	socket, stop := serve() // of a real one: /run/rackpower/central.sock
	defer stop()
	ctx := context.Background()
	client, err := api.NewClient("unix://" + socket)
	if err != nil {
		panic(err)
	}
	defer client.Close()
	_, err = client.AddNodes(ctx, api.AddNodes{Nodes: []api.NodeSpec{{Name: "r1n01", Rack: "r1"}, {Name: "r1n02", Rack: "r1"}}})
	if err != nil {
		panic(err)
	}
	if _, err := client.SetStatus(ctx, api.SetStatus{Names: []string{"r1n02"}, Status: "READY"}); err != nil {
		panic(err)
	}
	nodes, err := client.Nodes(ctx, "@r1")
	if err != nil {
		panic(err)
	}
	for _, n := range nodes {
		fmt.Printf("%s is %s, desired %s\n", n.Name, n.State, n.Desired)
	}
	_, err = client.Nodes(ctx, "r9n01")
	fmt.Println(api.CodeOf(err))
	// Output:
	// r1n01 is unknown, desired hands-off
	// r1n02 is unknown, desired off
	// not-found
}

func ExampleClient_Watch() {
	socket, stop := serve()
	defer stop()
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	client, err := api.NewClient("unix://" + socket)
	if err != nil {
		panic(err)
	}
	defer client.Close()
	err = client.Watch(ctx, api.Watch{Kinds: []string{api.EventAudit}}, func(ev api.Event) error {
		switch ev.Kind {
		case api.EventReady: // what happens from now on follows
			_, err := client.AddNodes(ctx, api.AddNodes{Nodes: []api.NodeSpec{{Name: "r1n01", Rack: "r1"}}})
			return err
		case api.EventAudit:
			fmt.Println(ev.Entry.What, ev.Entry.Node)
			cancel()
		}
		return nil
	})
	fmt.Println(err)
	// Output:
	// node-add r1n01
	// context canceled
}
