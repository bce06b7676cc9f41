// SPDX-License-Identifier: Apache-2.0

package importer

import (
	"slices"
	"strings"
)

// streamWords are the directives of stream{} and its servers that are carried
// over, or whose effect sluice has in any case.
const streamWords = ` server upstream listen include proxy_pass log_format access_log limit_conn_zone limit_conn
 proxy_connect_timeout proxy_timeout proxy_next_upstream proxy_next_upstream_tries proxy_next_upstream_timeout
 proxy_protocol proxy_half_close proxy_upload_rate proxy_download_rate proxy_socket_keepalive allow deny
 set_real_ip_from limit_conn_dry_run proxy_ssl return pass js_access js_preread js_filter `

// httpWords are those of http{} and its servers.
const httpWords = ` server upstream listen include location grpc_pass http2 log_format access_log limit_conn_zone limit_conn
 grpc_connect_timeout grpc_read_timeout grpc_next_upstream grpc_next_upstream_tries grpc_next_upstream_timeout
 allow deny set_real_ip_from ssl `

// carried tells whether a directive of this name is dealt with where its block is.
func carried(c *context, name string) bool {
	words := streamWords
	if c.http {
		words = httpWords
	}
	return strings.Contains(words, " "+name+" ") || strings.Contains(words, " "+name+"\n")
}

// nginxWords are the names of directives that this package knows: text behind a
// semicolon that begins with one isn't prose.
func nginxWords() map[string]bool {
	all := map[string]bool{}
	for _, w := range strings.Fields(streamWords + httpWords + ` stream http events worker_processes worker_shutdown_timeout
		zone least_conn hash ip_hash random keepalive `) {
		all[w] = true
	}
	for w := range meaningless() {
		all[w] = true
	}
	return all
}

// usual are values that say what sluice does in any case.
func usual() map[string][]string {
	return map[string][]string{
		"accept_mutex":               {"on", "off"},
		"daemon":                     {"off"},
		"limit_conn_dry_run":         {"off"},
		"master_process":             {"on", "off"},
		"multi_accept":               {"on", "off"},
		"open_log_file_cache":        {"off"},
		"pcre_jit":                   {"on", "off"},
		"preread_timeout":            {"30s", "30"},
		"proxy_protocol_timeout":     {"30s", "30"},
		"tcp_nodelay":                {"on"},
		"use":                        {"epoll"},
		"worker_cpu_affinity":        {"auto"},
		"proxy_ssl":                  {"off"},
		"ssl_preread":                {"off"},
		"client_max_body_size":       {"0"},
		"grpc_socket_keepalive":      {"off"},
		"variables_hash_max_size":    nil,
		"variables_hash_bucket_size": nil,
		"types_hash_max_size":        nil,
		"types_hash_bucket_size":     nil,
		"server_names_hash_max_size": nil,
		"limit_conn_status":          nil,
		"limit_conn_log_level":       nil,
		"proxy_buffer_size":          {"16k"},
		"proxy_session_drop":         {"off"},
		"server_name":                {"_", ""},
	}
}

// meaningless says of directives without a counterpart why there is none.
func meaningless() map[string]string {
	const tls, perf, http = "sluice has no TLS", "a knob of nginx's own working, sluice has none for it", "HTTP other than gRPC stays with nginx"
	return map[string]string{
		"user":                         "sluice runs as who starts it; User= of the unit says who",
		"group":                        "sluice runs as who starts it; Group= of the unit says who",
		"pid":                          "sluice writes no pid file",
		"error_log":                    "sluice's own log goes to stderr, how much it tells is log: {level: ...}",
		"daemon":                       "sluice runs in the foreground, under systemd",
		"worker_connections":           "as many sessions as there are descriptors; max_conns of a listener limits them",
		"worker_rlimit_nofile":         "sluice raises its limit to the hard one; LimitNOFILE= of the unit sets that",
		"worker_rlimit_core":           "LimitCORE= of the unit sets that",
		"worker_priority":              "Nice= of the unit sets that",
		"worker_cpu_affinity":          "CPUAffinity= of the unit sets that",
		"working_directory":            "WorkingDirectory= of the unit sets that",
		"env":                          "Environment= of the unit sets that",
		"thread_pool":                  perf,
		"timer_resolution":             perf,
		"use":                          "sluice waits by epoll",
		"mail":                         "sluice proxies TCP, not mail",
		"js_import":                    "sluice runs no scripts",
		"js_path":                      "sluice runs no scripts",
		"js_set":                       "sluice runs no scripts",
		"perl_modules":                 "sluice runs no scripts",
		"load_module":                  "a module of nginx",
		"map":                          "sluice's file has no variables",
		"geo":                          "sluice's file has no variables",
		"geoip_country":                "sluice's file has no variables",
		"geoip_city":                   "sluice's file has no variables",
		"split_clients":                "sluice's file has no variables",
		"set":                          "sluice's file has no variables",
		"keyval":                       "sluice's file has no variables",
		"keyval_zone":                  "sluice's file has no variables",
		"ssl_preread":                  "sluice doesn't route by TLS's server name",
		"server_name":                  "sluice doesn't route by names",
		"preread_buffer_size":          "sluice reads nothing ahead but PROXY headers",
		"preread_timeout":              "PROXY headers have 30s in sluice",
		"proxy_protocol_timeout":       "PROXY headers have 30s in sluice",
		"proxy_buffer_size":            "the kernel moves the bytes, or a relay with buffers of its own bounds",
		"proxy_bind":                   "sluice has no source addresses of one's choice; backends see the one that the route gives",
		"proxy_requests":               "sluice has no UDP",
		"proxy_responses":              "sluice has no UDP",
		"proxy_session_drop":           "on_remove: close of the pool, and on_down: close of its check, do this",
		"resolver":                     "sluice asks the system's resolver, again each 30 s",
		"resolver_timeout":             "sluice asks the system's resolver, off its event loops",
		"tcp_nodelay":                  "sluice never delays small segments",
		"open_log_file_cache":          "sluice keeps its log open; SIGUSR1 reopens it",
		"status_zone":                  "sluice counts for all listeners and pools: /stats, /metrics",
		"health_check":                 "write a check: in the pool",
		"health_check_timeout":         "write a check: in the pool",
		"match":                        "write a check: in the pool",
		"queue":                        "sluice queues nobody: with no backend to pick a session ends",
		"sticky":                       "sluice has no sessions of HTTP; balance: hash keeps a client at its backend",
		"state":                        "the file is the state, and edits of it are live",
		"ntlm":                         http,
		"sendfile":                     http,
		"tcp_nopush":                   http,
		"types":                        http,
		"default_type":                 http,
		"gzip":                         http,
		"server_tokens":                http,
		"root":                         http,
		"index":                        http,
		"error_page":                   http,
		"add_header":                   http,
		"keepalive_timeout":            "a connection without an RPC ends after idle_timeout",
		"keepalive_requests":           "a connection has any number of RPCs",
		"http2_max_concurrent_streams": "a knob of nginx's HTTP/2, sluice has none for it",
		"client_max_body_size":         "sluice passes messages of any size; max_message of the listener limits one",
		"grpc_send_timeout":            "idle_timeout is one for both directions",
		"grpc_set_header":              "metadata passes as it came",
		"grpc_pass_header":             "metadata passes as it came",
		"grpc_hide_header":             "metadata passes as it came",
		"grpc_ssl_verify":              tls,
		"grpc_buffer_size":             perf,
		"grpc_bind":                    "sluice has no source addresses of one's choice",
	}
}

// unknown is the note of a directive that isn't carried over, unless it says
// what sluice does in any case.
func (x *nginx) unknown(d *directive) {
	if x.words == nil {
		x.words, x.usual = meaningless(), usual()
	}
	if values, ok := x.usual[d.name]; ok && (values == nil || slices.Contains(values, d.arg(0))) {
		return
	}
	if d.name == "load_module" && strings.HasSuffix(d.arg(0), "ngx_stream_module.so") {
		return
	}
	what := d.String()
	if d.braced {
		what = d.name // with all that is in it
	}
	switch why, ok := x.words[d.name]; {
	case ok:
		x.say(d.at, what, why)
	case strings.HasPrefix(d.name, "ssl_") || strings.HasPrefix(d.name, "proxy_ssl_") || strings.HasPrefix(d.name, "grpc_ssl_"):
		x.say(d.at, what, "sluice has no TLS")
	case strings.Contains(d.name, "_by_lua"):
		x.say(d.at, what, "sluice runs no scripts")
	default:
		x.say(d.at, what, "has no counterpart in sluice")
	}
}
