package main

import (
	"math"
	"slices"
	"strconv"
	"strings"

	"github.com/tocsinhq/tocsin/sdk"
)

// info is what INFO answers (https://redis.io/docs/latest/commands/info/): fields by name.
type info map[string]string

// maxFields bounds what is kept of an INFO; a server has some 200.
const maxFields = 10_000

// parseInfo reads lines of NAME:VALUE. Others, such as the headings of sections, are passed over.
func parseInfo(text string) info {
	fields := make(info, 256)
	for line := range strings.SplitSeq(text, "\n") {
		name, value, ok := strings.Cut(strings.TrimSuffix(line, "\r"), ":")
		if ok && !strings.HasPrefix(name, "#") && len(fields) < maxFields {
			fields[name] = value
		}
	}
	return fields
}

// number reads a field; it reports false when it is not there or no number.
func (i info) number(name string) (float64, bool) {
	n, err := strconv.ParseFloat(i[name], 64)
	return n, err == nil && !math.IsNaN(n) && !math.IsInf(n, 0)
}

// product is what the server calls itself, with its version: "redis 7.0.15" or "valkey 8.0.1".
func (i info) product() string {
	name := i["server_name"]
	if name == "" || i[name+"_version"] == "" {
		name = "redis"
	}
	return strings.TrimSpace(name + " " + i[name+"_version"])
}

// role is master or replica, or what else the server says.
func (i info) role() string {
	if i["role"] == "slave" { // the word of the protocol
		return "replica"
	}
	return i["role"]
}

// judge makes a result of a server that answered PING. What changes from check to check is in the metrics, so that the
// message stays the same while nothing happens.
func (c config) judge(i info, state string) sdk.Result {
	role := i.role()
	result := sdk.Result{Status: sdk.Up, Message: "PONG as " + role + ", " + i.product(), Metrics: c.metrics(i), State: i["run_id"]}
	if role == "" {
		result.Message = "PONG, " + i.product()
	}
	if state != "" && result.State != "" && state != result.State {
		result.Message += ", restarted since the last check"
	}
	switch {
	case c.ExpectRole != "" && role != c.ExpectRole:
		result.Status = sdk.Down
		result.Message += "; expected a " + c.ExpectRole
	case role == "replica" && i["master_link_status"] == "down":
		result.Status = sdk.Degraded
		result.Message += "; the link to its master is down"
	case i["loading"] == "1":
		result.Status = sdk.Degraded
		result.Message += "; it is loading its data"
	case i["rdb_last_bgsave_status"] == "err":
		result.Status = sdk.Degraded
		result.Message += "; its last snapshot could not be saved"
	case i["aof_last_write_status"] == "err":
		result.Status = sdk.Degraded
		result.Message += "; its append-only file cannot be written"
	}
	return result
}

// metricNames are the metrics that a range can be given for, in the order in which they are listed.
var metricNames = [...]string{
	"memory_used", "memory_max", "memory_percent", "memory_fragmentation_ratio", "connected_clients", "blocked_clients",
	"commands_per_second", "evicted_keys", "keyspace_hits", "keyspace_misses", "hit_percent", "keys", "uptime_seconds",
	"connected_replicas", "replication_lag_seconds", "link_down_seconds",
}

// metrics gives the figures that the server has, with the ranges of the configuration.
func (c config) metrics(i info) []sdk.Metric {
	var list []sdk.Metric
	add := func(name string, value float64, unit string) {
		list = append(list, sdk.Metric{Name: name, Value: value, Unit: unit, Warn: c.Warn[name], Crit: c.Crit[name]})
	}
	field := func(name, from, unit string) {
		if n, ok := i.number(from); ok {
			add(name, n, unit)
		}
	}
	field("memory_used", "used_memory", "B")
	if most, ok := i.number("maxmemory"); ok && most > 0 { // 0: no limit
		add("memory_max", most, "B")
		if used, ok := i.number("used_memory"); ok {
			add("memory_percent", 100*used/most, "%")
		}
	}
	field("memory_fragmentation_ratio", "mem_fragmentation_ratio", "1")
	field("connected_clients", "connected_clients", "1")
	field("blocked_clients", "blocked_clients", "1")
	field("commands_per_second", "instantaneous_ops_per_sec", "1")
	field("evicted_keys", "evicted_keys", "1")
	field("keyspace_hits", "keyspace_hits", "1")
	field("keyspace_misses", "keyspace_misses", "1")
	hits, _ := i.number("keyspace_hits")
	misses, _ := i.number("keyspace_misses")
	if hits+misses > 0 {
		add("hit_percent", 100*hits/(hits+misses), "%")
	}
	add("keys", i.keys(), "1")
	field("uptime_seconds", "uptime_in_seconds", "s")
	switch i.role() {
	case "master":
		field("connected_replicas", "connected_slaves", "1")
		if seconds, ok := i.slowest(); ok {
			add("replication_lag_seconds", seconds, "s")
		}
	case "replica":
		field("replication_lag_seconds", "master_last_io_seconds_ago", "s") // -1 while there is no link
		field("link_down_seconds", "master_link_down_since_seconds", "s")
	}
	return list
}

// keys counts the keys of all databases: db0:keys=1,expires=0,avg_ttl=0.
func (i info) keys() float64 {
	var sum float64
	for name, value := range i {
		if !numbered(name, "db") {
			continue
		}
		if n, ok := attribute(value, "keys"); ok {
			sum += n
		}
	}
	return sum
}

// slowest is the longest time since a replica of this master was heard of: slave0:ip=…,port=…,state=online,offset=…,lag=1.
// It reports false when there is none.
func (i info) slowest() (float64, bool) {
	var lags []float64
	for name, value := range i {
		if !numbered(name, "slave") {
			continue
		}
		if n, ok := attribute(value, "lag"); ok {
			lags = append(lags, n)
		}
	}
	if len(lags) == 0 {
		return 0, false
	}
	return slices.Max(lags), true
}

// numbered reports whether a name is a prefix and a number behind it.
func numbered(name, prefix string) bool {
	index, ok := strings.CutPrefix(name, prefix)
	return ok && index != "" && strings.Trim(index, "0123456789") == ""
}

// attribute reads one of name=value,name=value as a number.
func attribute(list, name string) (float64, bool) {
	for pair := range strings.SplitSeq(list, ",") {
		if key, value, _ := strings.Cut(pair, "="); key == name {
			return info{name: value}.number(name)
		}
	}
	return 0, false
}
