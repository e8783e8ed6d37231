package api

import (
	"context"
	"errors"
	"net/http"
	"sort"
	"strconv"
	"time"

	"github.com/gin-gonic/gin"
	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/collectors"
	"github.com/prometheus/client_golang/prometheus/promhttp"

	"github.com/tocsinhq/tocsin/engine/monitor"
	"github.com/tocsinhq/tocsin/internal/service"
	"github.com/tocsinhq/tocsin/sdk"
)

// metrics has a registry of its own: two servers in one process share no figures.
type metrics struct {
	api      *API
	requests *prometheus.CounterVec
	took     *prometheus.HistogramVec
	handler  http.Handler
}

func newMetrics(a *API) *metrics {
	m := &metrics{
		api: a,
		requests: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "tocsin_http_requests_total", Help: "Requests by route, method and status.",
		}, []string{"route", "method", "status"}),
		took: prometheus.NewHistogramVec(prometheus.HistogramOpts{
			Name: "tocsin_http_request_duration_seconds", Help: "Time to answer a request, by route.",
			Buckets: []float64{.001, .0025, .005, .01, .025, .05, .1, .25, .5, 1, 2.5, 10},
		}, []string{"route"}),
	}
	registry := prometheus.NewPedanticRegistry()
	registry.MustRegister(m, m.requests, m.took, collectors.NewGoCollector(),
		collectors.NewProcessCollector(collectors.ProcessCollectorOpts{}))
	m.handler = promhttp.HandlerFor(registry, promhttp.HandlerOpts{ErrorLog: promLog{a}, ErrorHandling: promhttp.ContinueOnError})
	return m
}

type promLog struct{ api *API }

// Println logs what the registry complains about.
func (l promLog) Println(v ...any) {
	for _, part := range v {
		if err, ok := part.(error); ok {
			l.api.log.Error("metrics could not be read", "error", err)
		}
	}
}

func (m *metrics) serve(c *gin.Context) { m.handler.ServeHTTP(c.Writer, c.Request) }

func (m *metrics) request(route, method string, status int, took time.Duration) {
	switch method { // anything else may be any text
	case http.MethodGet, http.MethodPost, http.MethodPut, http.MethodPatch, http.MethodDelete, http.MethodHead, http.MethodOptions:
	default:
		method = "other"
	}
	m.requests.WithLabelValues(route, method, strconv.Itoa(status)).Inc()
	if route != prefix+"/events" { // streams last for hours
		m.took.WithLabelValues(route).Observe(took.Seconds())
	}
}

// Describe says nothing: what there is to collect depends on the store.
func (m *metrics) Describe(chan<- *prometheus.Desc) {}

// Collect reads the figures of engine, store and delivery.
func (m *metrics) Collect(out chan<- prometheus.Metric) {
	ctx, cancel := context.WithTimeout(context.Background(), 5*time.Second)
	defer cancel()
	ctx = service.WithPrincipal(ctx, service.Principal{Name: "metrics", Role: monitor.Viewer})
	s, err := m.api.svc.Stats(ctx)
	measured, measuredErr := m.api.svc.Measured(ctx)
	plugins, pluginsErr := m.api.svc.ListPlugins(ctx)
	if err = errors.Join(err, measuredErr, pluginsErr); err != nil {
		out <- prometheus.NewInvalidMetric(prometheus.NewInvalidDesc(errors.New("figures")), err)
		return
	}
	g := gauges{out}
	g.gauge("tocsin_build_info", "Always 1; the version is a label.", 1, "version", s.Version)
	g.gauge("tocsin_start_time_seconds", "When the server started, in seconds since 1970.", float64(s.Started.UnixMilli())/1000)
	for _, c := range monitor.Conditions() {
		g.gauge("tocsin_monitors", "Monitors by state.", float64(s.Engine.Monitors[c]), "state", c.String())
	}
	for kind, counts := range s.Engine.Results {
		for _, status := range sdk.Statuses() {
			g.counter("tocsin_check_results_total", "Results by kind and status.", float64(counts[status]), "kind", kind, "status", status.String())
		}
	}
	g.gauge("tocsin_checks_running", "Checks under way.", float64(s.Engine.Running))
	g.gauge("tocsin_checks_waiting", "Checks that are due and wait for room.", float64(s.Engine.Waiting))
	g.gauge("tocsin_workers", "Workers that make checks.", float64(s.Engine.Workers))
	g.counter("tocsin_check_overruns_total", "Checks that were due while the one before still ran.", float64(s.Engine.Overruns))
	g.counter("tocsin_check_panics_total", "Checks that panicked.", float64(s.Engine.Panics))
	g.counter("tocsin_transitions_total", "Changes of a monitor's state.", float64(s.Engine.Transitions))
	g.gauge("tocsin_transitions_unrecorded", "Changes of state on their way to the store.", float64(s.Engine.Unrecorded))
	g.gauge("tocsin_notifications_pending", "Notifications that wait to be delivered.", float64(s.Outbox.Pending))
	g.gauge("tocsin_notifications_failed", "Notifications that were given up and are still kept.", float64(s.Outbox.Failed))
	oldest := 0.0
	if !s.Outbox.Oldest.IsZero() {
		oldest = max(time.Since(s.Outbox.Oldest).Seconds(), 0)
	}
	g.gauge("tocsin_notification_oldest_age_seconds", "Age of the oldest notification that waits; 0 when none does.", oldest)
	m.delivery(g, &s)
	m.lateness(out, &s)
	for _, f := range s.Figures {
		g.figure(f)
	}
	for i := range measured {
		g.monitor(&measured[i])
	}
	for i := range plugins {
		g.plugin(&plugins[i])
	}
}

// plugin writes the series of one plugin.
func (g gauges) plugin(p *monitor.InstalledPlugin) {
	u, labels := &p.Usage, []string{"plugin", p.Name}
	ready := 0.0
	if p.Condition == monitor.PluginReady {
		ready = 1
	}
	g.gauge("tocsin_plugin_ready", "1 while the plugin can be used, else 0.", ready, labels...)
	g.counter("tocsin_plugin_calls_total", "Calls of the plugin that ended.", float64(u.Calls), labels...)
	g.counter("tocsin_plugin_failures_total", "Calls that answered with an error, crashed, or answered nonsense.", float64(u.Failures), labels...)
	g.counter("tocsin_plugin_kills_total", "Times that a process of the plugin had to be killed.", float64(u.Kills), labels...)
	g.counter("tocsin_plugin_starts_total", "Times that a process of the plugin was started.", float64(u.Starts), labels...)
	g.gauge("tocsin_plugin_running", "Calls of the plugin under way.", float64(u.Running), labels...)
	g.gauge("tocsin_plugin_runners", "Processes of the plugin.", float64(u.Runners), labels...)
	g.counter("tocsin_plugin_cpu_seconds_total", "Processor time of all processes of the plugin.", u.CPU.Seconds(), labels...)
	g.gauge("tocsin_plugin_memory_bytes", "Resident memory of the processes of the plugin.", float64(u.Memory), labels...)
	const network = "Bytes that the plugin read from and wrote to the network."
	g.counter("tocsin_plugin_network_bytes_total", network, float64(u.BytesRead), append(labels, "direction", "read")...)
	g.counter("tocsin_plugin_network_bytes_total", network, float64(u.BytesWritten), append(labels, "direction", "written")...)
	g.counter("tocsin_plugin_denied_total", "Connections of the plugin that were refused.", float64(u.Denied), labels...)
	took := prometheus.NewDesc("tocsin_plugin_call_seconds", "How long calls of the plugin took, in all.", labels[:1], nil)
	g.out <- prometheus.MustNewConstSummary(took, u.Calls, u.Latency.Seconds(), nil, p.Name)
}

// monitor writes the series of one monitor that asked for them.
func (g gauges) monitor(c *service.Current) {
	labels := []string{"monitor", c.Monitor.Name, "kind", c.Monitor.Kind}
	up := 0.0
	if s := c.State.Condition; s == monitor.Up || s == monitor.Degraded {
		up = 1
	}
	g.gauge("tocsin_monitor_up", "1 while the monitor is up or degraded, else 0. Monitors with the label metrics=true only, like all tocsin_monitor_ series.", up, labels...)
	for _, s := range monitor.Conditions() {
		is := 0.0
		if s == c.State.Condition {
			is = 1
		}
		g.gauge("tocsin_monitor_state", "1 for the state that the monitor is in, 0 for every other.", is, append(labels, "state", s.String())...)
	}
	if c.Last == nil {
		return
	}
	g.gauge("tocsin_monitor_latency_seconds", "Latency of the newest result.", c.Last.Result.Latency.Seconds(), labels...)
	g.gauge("tocsin_monitor_last_result_timestamp_seconds", "When the newest result was found, in seconds since 1970.", float64(c.Last.At.UnixMilli())/1000, labels...)
	if at := c.Last.Result.ExpiresAt; !at.IsZero() {
		g.gauge("tocsin_monitor_certificate_expiry_timestamp_seconds", "When the certificate ends that was seen last, in seconds since 1970.", float64(at.Unix()), labels...)
	}
}

// lateness writes the engine's fine buckets as fewer, for Prometheus keeps a series for each.
func (m *metrics) lateness(out chan<- prometheus.Metric, s *service.Stats) {
	h := s.Engine.Lateness
	buckets, seen := map[float64]uint64{}, uint64(0)
	for i, n := range h.Counts {
		seen += uint64(max(n, 0))
		if i%4 == 3 && i < len(h.Counts)-1 {
			buckets[h.Bound(i).Seconds()] = seen
		}
	}
	desc := prometheus.NewDesc("tocsin_check_lateness_seconds", "Start of a check minus the time at which it was due.", nil, nil)
	out <- prometheus.MustNewConstHistogram(desc, uint64(max(h.Count, 0)), h.Sum.Seconds(), buckets)
}

type gauges struct{ out chan<- prometheus.Metric }

func (g gauges) gauge(name, help string, value float64, labels ...string) {
	g.put(name, help, prometheus.GaugeValue, value, labels)
}

func (g gauges) counter(name, help string, value float64, labels ...string) {
	g.put(name, help, prometheus.CounterValue, value, labels)
}

func (g gauges) put(name, help string, kind prometheus.ValueType, value float64, labels []string) {
	var names, values []string
	for i := 0; i+1 < len(labels); i += 2 {
		names, values = append(names, labels[i]), append(values, labels[i+1])
	}
	metric, err := prometheus.NewConstMetric(prometheus.NewDesc(name, help, names, nil), kind, value, values...)
	if err != nil {
		metric = prometheus.NewInvalidMetric(prometheus.NewInvalidDesc(err), err)
	}
	g.out <- metric
}

func (g gauges) figure(f service.Figure) {
	names := make([]string, 0, len(f.Labels))
	for name := range f.Labels {
		names = append(names, name)
	}
	sort.Strings(names)
	var labels []string
	for _, name := range names {
		labels = append(labels, name, f.Labels[name])
	}
	kind := prometheus.GaugeValue
	if f.Counter {
		kind = prometheus.CounterValue
	}
	g.put(f.Name, f.Help, kind, f.Value, labels)
}

func (m *metrics) delivery(g gauges, s *service.Stats) {
	d := s.Engine.Delivery
	g.counter("tocsin_notifications_sent_total", "Notifications that a receiver took.", float64(d.Sent))
	g.counter("tocsin_notifications_retried_total", "Attempts to deliver that are to be repeated.", float64(d.Retried))
	g.counter("tocsin_notifications_given_up_total", "Notifications that were given up.", float64(d.GivenUp))
	g.gauge("tocsin_notifications_in_flight", "Attempts to deliver under way.", float64(d.InFlight))
	g.gauge("tocsin_attempts_unrecorded", "Attempts that were made and are not stored yet.", float64(d.Unrecorded))
}
