package session_test

import (
	"context"
	"fmt"
	"net"

	"github.com/slipwaybuild/slipway/session"
	"github.com/slipwaybuild/slipway/session/secrets"
)

// A client offers a secret, and the daemon asks whichever session of a build has it.
func Example() {
	ctx := context.Background()
	daemon := session.NewManager(session.ManagerOptions{})
	client := session.New(session.Options{})
	client.Allow(secrets.FromStore(secrets.Map{"token": []byte("s3cret")}))

	// Between two processes the dialer is one of package dial.
	dialer := func(_ context.Context, _ string, meta map[string][]string) (net.Conn, error) {
		near, far := net.Pipe()
		go func() { _ = daemon.HandleConn(ctx, far, meta) }()
		return near, nil
	}
	done := make(chan error, 1)
	go func() { done <- client.Run(ctx, dialer) }()

	value, err := secrets.Get(ctx, daemon.Group(client.ID()), "token")
	fmt.Printf("%s %v\n", value, err)
	fmt.Println(client.Close(), <-done, daemon.Close())
	// Output:
	// s3cret <nil>
	// <nil> <nil> <nil>
}
