-- One fixed body, from a file; at the end one line of JSON, latencies in microseconds.
local file = assert(io.open(os.getenv("BENCHMARK_BODY"), "rb"))
wrk.method = "POST"
wrk.headers["Content-Type"] = os.getenv("BENCHMARK_TYPE")
wrk.body = file:read("*a")
file:close()

done = function(summary, latency, requests)
  local wrong = summary.errors
  io.write(string.format(
    '\n{"requests": %d, "seconds": %.6f, "p50": %d, "p99": %d, "failed": %d}\n',
    summary.requests, summary.duration / 1e6, latency:percentile(50), latency:percentile(99),
    wrong.connect + wrong.read + wrong.write + wrong.status + wrong.timeout))
end
