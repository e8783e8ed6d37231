package app

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"net/http/pprof"
	"time"

	"golang.org/x/sync/errgroup"
)

// Time-outs of the HTTP server. Writing has none of its own: streams set a deadline for each message, and everything else
// has one from its handler.
const (
	readHeaderTimeout = 10 * time.Second
	readTimeout       = 30 * time.Second
	idleTimeout       = 2 * time.Minute
	maxHeaderBytes    = 64 << 10
)

// front is what listens: the API, and the profiler when it is wanted.
type front struct {
	log       *slog.Logger
	listeners []net.Listener
	servers   []*http.Server
	cut       context.CancelFunc // ends the contexts of all requests
}

// listen opens the listeners, so that an address that is taken is told before anything runs.
func (s *server) listen(ctx context.Context) error {
	requests, cut := context.WithCancel(context.WithoutCancel(ctx))
	s.front = &front{log: s.log, cut: cut}
	s.closeLater("listeners", func(context.Context) error { return s.front.close() })
	var handler http.Handler = http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		s.requests.Add(1)
		defer s.requests.Add(-1)
		s.api.Handler().ServeHTTP(w, r)
	})
	if s.Settings.Demo {
		handler = s.demoHandler(handler)
	}
	if err := s.front.add(requests, s.Settings.Listen, handler); err != nil {
		return err
	}
	if s.Settings.AdminListen == "" {
		return nil
	}
	mux := http.NewServeMux()
	mux.HandleFunc("/debug/pprof/", pprof.Index)
	mux.HandleFunc("/debug/pprof/cmdline", pprof.Cmdline)
	mux.HandleFunc("/debug/pprof/profile", pprof.Profile)
	mux.HandleFunc("/debug/pprof/symbol", pprof.Symbol)
	mux.HandleFunc("/debug/pprof/trace", pprof.Trace)
	return s.front.add(requests, s.Settings.AdminListen, mux)
}

func (f *front) add(requests context.Context, address string, handler http.Handler) error {
	var lc net.ListenConfig
	l, err := lc.Listen(requests, "tcp", address)
	if err != nil {
		return fmt.Errorf("listen on %s: %w", address, err)
	}
	f.listeners = append(f.listeners, l)
	f.servers = append(f.servers, &http.Server{
		Handler: handler, BaseContext: func(net.Listener) context.Context { return requests },
		ReadHeaderTimeout: readHeaderTimeout, ReadTimeout: readTimeout, IdleTimeout: idleTimeout, MaxHeaderBytes: maxHeaderBytes,
		ErrorLog: slog.NewLogLogger(f.log.Handler(), slog.LevelDebug),
	})
	return nil
}

func (f *front) serve(group *errgroup.Group) {
	for i, server := range f.servers {
		group.Go(func() error {
			if err := server.Serve(f.listeners[i]); !errors.Is(err, http.ErrServerClosed) {
				return fmt.Errorf("serve %s: %w", f.listeners[i].Addr(), err)
			}
			return nil
		})
	}
}

// address is where the API is reached from this machine.
func (f *front) address() string {
	addr, ok := f.listeners[0].Addr().(*net.TCPAddr)
	if !ok {
		return f.listeners[0].Addr().String()
	}
	host := addr.IP.String()
	if addr.IP.IsUnspecified() {
		host = "127.0.0.1"
	}
	return net.JoinHostPort(host, fmt.Sprint(addr.Port))
}

func (f *front) url() string { return "http://" + f.address() }

// shut takes no more requests, and waits for those under way until the deadline at most.
func (f *front) shut(ctx context.Context, deadline time.Time) {
	ctx, cancel := context.WithDeadline(context.WithoutCancel(ctx), deadline)
	defer cancel()
	for _, server := range f.servers {
		if err := server.Shutdown(ctx); err != nil {
			f.log.Warn("requests were cut off", "error", err)
			if err := server.Close(); err != nil {
				f.log.Warn("close the HTTP server", "error", err)
			}
		}
	}
	f.cut()
}

// close ends everything at once. Closing after shut, or twice, is fine.
func (f *front) close() error {
	f.cut()
	var err error
	for i, server := range f.servers {
		closeErr := f.listeners[i].Close()
		if errors.Is(closeErr, net.ErrClosed) {
			closeErr = nil
		}
		err = errors.Join(err, server.Close(), closeErr)
	}
	return err
}
