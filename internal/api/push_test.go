package api

import (
	"strings"
	"testing"
)

func TestPushParameters(t *testing.T) {
	s := start(t)
	m := s.must(201, s.do("POST", "/api/v1/monitors", `{"name":"job","kind":"push","interval":"1h"}`))
	anyone, one := s.as(""), "/api/v1/monitors/"+m.str("id")
	const form = "application/x-www-form-urlencoded"
	for _, base := range []string{m.str("push_url"), "/api" + m.str("push_url")} {
		for _, tt := range []struct {
			method, query, media, body, status, message string
			us                                          float64
		}{
			{"GET", "?status=up&msg=OK&ping=", "", "", "up", "OK", 0},
			{"POST", "?status=up&msg=OK&ping=12.5", "", "", "up", "OK", 12500},
			{"GET", "?status=up&msg=&ping=3", "", "", "up", "heartbeat up", 3000},
			{"GET", "", "", "", "up", "heartbeat up", 0},
			{"POST", "", form, "status=down&msg=disk+full", "down", "disk full", 0},
			{"GET", "", form, "status=down&msg=from+a+GET", "down", "from a GET", 0},
			{"POST", "?status=degraded", form + "; charset=UTF-8", "msg=slow%20%C3%A4&ping=7", "degraded", "slow ä", 7000},
		} {
			s.must(200, anyone.do(tt.method, base+tt.query, tt.body, "Content-Type", tt.media))
			a := s.must(200, s.do("GET", one, ""))
			if us := number(a, "last.latency_us"); a.str("last.status") != tt.status || a.str("last.message") != tt.message || us != tt.us {
				t.Errorf("%s %s %q: got %s %q %v", tt.method, tt.query, tt.body, a.str("last.status"), a.str("last.message"), us)
			}
		}
		s.must(200, anyone.do("GET", base+"?msg=before", ""))
		for _, tt := range []struct {
			query, media, body string
			code               int
			where, says        string
		}{
			{"", "application/json", `{"status":"down"}`, 415, "", "application/x-www-form-urlencoded"},
			{"?status=up", "application/json", `{}`, 415, "", "application/x-www-form-urlencoded"},
			{"", "multipart/form-data; boundary=x", "--x--", 415, "", "application/x-www-form-urlencoded"},
			{"", "text/plain", "status=down", 415, "", "application/x-www-form-urlencoded"},
			{"", "", "status=down", 415, "", "application/x-www-form-urlencoded"},
			{"", form + "; charset=latin1", "status=down", 415, "", "application/x-www-form-urlencoded"},
			{"?stauts=down", "", "", 422, "query.stauts", "did you mean status?"},
			{"?STATUS=down", "", "", 422, "query.STATUS", "did you mean status?"},
			{"?other=1", "", "", 422, "query.other", "known are msg, ping, status"},
			{"", form, "mesg=x", 422, "body.mesg", "did you mean msg?"},
			{"?status=up&status=down", "", "", 422, "query.status", "more than once"},
			{"", form, "msg=a&msg=b", 422, "body.msg", "more than once"},
			{"?status=up", form, "status=down", 422, "body.status", "in the query as well"},
			{"?status=up", form, "status=up", 422, "body.status", "in the query as well"},
			{"?status=", "", "", 422, "query.status", "up, degraded or down"},
			{"", form, "status=sideways", 422, "body.status", "up, degraded or down"},
			{"", form, "ping=x", 422, "body.ping", "milliseconds"},
			{"", form, "msg=%ff", 422, "body.msg", "UTF-8"},
			{"?status=down%", "", "", 422, "query", "escapes"},
			{"?a;status=down", "", "", 422, "query", "escapes"},
			{"", form, "status=down%", 422, "body", "escapes"},
			{"", form, "status=down&msg=" + strings.Repeat("x", 20_000), 413, "", "16384 bytes"},
		} {
			a := anyone.do("POST", base+tt.query, tt.body, "Content-Type", tt.media)
			text := a.str("detail")
			if tt.where != "" {
				text = a.faults(t)[tt.where]
			}
			if a.status != tt.code || !strings.Contains(text, tt.says) {
				t.Errorf("%s %q %q: got %d %q: %s", tt.query, tt.media, tt.body[:min(40, len(tt.body))], a.status, text, a.text)
			}
		}
		s.must(415, anyone.do("POST", base, "status=down", "Content-Type", form, "Content-Encoding", "gzip"))
		if a := s.must(200, s.do("GET", one, "")); a.str("last.message") != "before" || a.str("last.status") != "up" {
			t.Errorf("something that was refused was recorded: %s", a.text)
		}
	}
}

func number(a answer, path string) float64 {
	n, ok := a.get(path).(interface{ Float64() (float64, error) })
	if !ok {
		return -1
	}
	f, err := n.Float64()
	if err != nil {
		return -1
	}
	return f
}
