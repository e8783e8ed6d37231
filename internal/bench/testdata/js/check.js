// The JavaScript guest of the benchmark.
export function check(request) {
  return {status: "up", message: "read it", metrics: [{name: "bytes", value: JSON.stringify(request.config).length}]};
}
