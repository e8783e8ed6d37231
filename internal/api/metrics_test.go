package api

import (
	"net/http"
	"net/http/httptest"
	"os/exec"
	"strings"
	"testing"
	"time"

	"github.com/tocsinhq/tocsin/engine/monitor"
)

func TestMetrics(t *testing.T) {
	s := start(t)
	target := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {}))
	defer target.Close()
	id := s.must(201, s.do("POST", "/api/v1/monitors", `{"name":"m","kind":"http","target":"`+target.URL+`"}`)).str("id")
	s.must(200, s.do("POST", "/api/v1/monitors/"+id+"/check", ""))
	shown := s.must(201, s.do("POST", "/api/v1/monitors", `{"name":"shown \"one\"","kind":"http","target":"`+target.URL+`","labels":{"metrics":"true"}}`)).str("id")
	s.must(200, s.do("POST", "/api/v1/monitors/"+shown+"/check", ""))
	s.must(201, s.install("?grant=true", archive("redis", "1.2.0")))
	s.must(201, s.install("", archive("ntp", "1.2.0")))
	s.plugins.Report("redis", monitor.PluginUsage{
		Calls: 7, Failures: 1, Kills: 2, Starts: 3, Running: 4, Runners: 5, Latency: 1500 * time.Millisecond, CPU: 2500 * time.Millisecond,
		Memory: 6, BytesRead: 8, BytesWritten: 9, Denied: 10,
	}, nil, false)
	text := s.must(200, s.do("GET", "/metrics", "")).text
	for _, want := range []string{
		`tocsin_build_info{version="test"} 1`, `tocsin_monitors{state="up"} 2`, `tocsin_check_results_total{kind="http",status="up"}`,
		`tocsin_check_lateness_seconds_bucket{le="+Inf"}`, `tocsin_http_requests_total{method="POST",route="/api/v1/monitors",status="201"} 2`,
		"go_goroutines", "process_resident_memory_bytes", "tocsin_notifications_pending 0", `tocsin_monitor_up{kind="http",monitor="shown \"one\""} 1`,
		`tocsin_monitor_state{kind="http",monitor="shown \"one\"",state="down"} 0`, `tocsin_monitor_latency_seconds{`, `tocsin_test_rows{lane="must"} 7`,
		`tocsin_plugin_ready{plugin="redis"} 1`, `tocsin_plugin_ready{plugin="ntp"} 0`, `tocsin_plugin_calls_total{plugin="redis"} 7`,
		`tocsin_plugin_failures_total{plugin="redis"} 1`, `tocsin_plugin_kills_total{plugin="redis"} 2`, `tocsin_plugin_starts_total{plugin="redis"} 3`,
		`tocsin_plugin_running{plugin="redis"} 4`, `tocsin_plugin_runners{plugin="redis"} 5`, `tocsin_plugin_call_seconds_sum{plugin="redis"} 1.5`,
		`tocsin_plugin_call_seconds_count{plugin="redis"} 7`, `tocsin_plugin_cpu_seconds_total{plugin="redis"} 2.5`,
		`tocsin_plugin_memory_bytes{plugin="redis"} 6`, `tocsin_plugin_network_bytes_total{direction="read",plugin="redis"} 8`,
		`tocsin_plugin_network_bytes_total{direction="written",plugin="redis"} 9`, `tocsin_plugin_denied_total{plugin="redis"} 10`,
	} {
		if !strings.Contains(text, want) {
			t.Errorf("there is no %s", want)
		}
	}
	if strings.Contains(text, `monitor="m"`) || strings.Contains(text, id) {
		t.Error("a monitor that did not ask for it has series of its own")
	}
	promtool, err := exec.LookPath("promtool")
	if err != nil {
		t.Logf("promtool is not there, so only our own list was looked at; apt-get install prometheus has it")
		return
	}
	check := exec.CommandContext(t.Context(), promtool, "check", "metrics")
	check.Stdin = strings.NewReader(text)
	if out, err := check.CombinedOutput(); err != nil || len(strings.TrimSpace(string(out))) > 0 {
		t.Errorf("promtool: %v\n%s", err, out)
	}
}
