// Asks a GraphQL server a query, as https://graphql.github.io/graphql-over-http/draft/ says, and judges the answer.
//
//   down       no connection, no GraphQL answer, errors and no data, or not what is expected
//   degraded   data and errors, or too slow
//   up         everything else
//
// What is thrown, such as a refusal of the sandbox, makes the check unknown: then nothing is known about the server.

export function check(request) {
  const config = request.config;
  let response;
  try {
    response = tocsin.http({
      method: "POST",
      url: address(request.target),
      headers: headers(config),
      body: JSON.stringify({ query: config.query ?? "{__typename}", variables: config.variables }),
    });
  } catch (error) {
    if (["refused", "timeout", "dns", "tls", "closed", "failed"].includes(error.kind)) {
      return { status: "down", message: error.message };
    }
    throw error;
  }

  const answer = parse(response);
  const verdict = judge(response, answer, config);
  return {
    ...verdict,
    latency_us: response.timing_us.total,
    metrics: [
      { name: "errors", value: answer?.errors?.length ?? 0, unit: "1" },
      { name: "first_byte", value: response.timing_us.first_byte / 1000, unit: "ms" },
      { name: "size", value: (response.body ?? "").length, unit: "B" },
    ],
    expires_at: response.tls?.not_after,
  };
}

function address(target) {
  return target.includes("://") ? target : "https://" + target;
}

function headers(config) {
  const sent = {
    "Content-Type": "application/json",
    Accept: "application/graphql-response+json, application/json;q=0.9",
    ...config.headers,
  };
  if (config.token) sent.Authorization = "Bearer " + config.token;
  return sent;
}

// The answer, or undefined when the body is none.
function parse(response) {
  try {
    const answer = JSON.parse(response.body);
    const well = answer !== null && typeof answer === "object" && ("data" in answer || Array.isArray(answer.errors));
    return well ? answer : undefined;
  } catch {
    return undefined;
  }
}

function judge(response, answer, config) {
  if (answer === undefined) {
    const why = response.truncated ? "a body that is too long" : "no GraphQL answer";
    return { status: "down", message: `HTTP ${response.status}, ${why}` };
  }

  const errors = answer.errors ?? [];
  if (answer.data === null || answer.data === undefined) {
    return { status: "down", message: `HTTP ${response.status}, ${told(errors)}` };
  }
  // A server that has data says 200, with errors in it or not.
  if (response.status < 200 || response.status > 299) {
    return { status: "down", message: `HTTP ${response.status}` };
  }

  if (config.expect) {
    const found = at(answer.data, config.expect.path);
    if (found === undefined || found === null) {
      return { status: "down", message: `${config.expect.path} is not there` };
    }
    if ("value" in config.expect && !same(found, config.expect.value)) {
      const [is, wanted] = [found, config.expect.value].map((v) => JSON.stringify(v));
      return { status: "down", message: `${config.expect.path} is ${is}, not ${wanted}` };
    }
  }

  if (errors.length > 0) {
    return { status: "degraded", message: told(errors) };
  }
  // A message that is the same from check to check is stored once. How long it took is in the latency.
  if (Math.round(response.timing_us.total / 1000) > config.max_latency_ms) {
    return { status: "degraded", message: `slower than ${config.max_latency_ms} ms` };
  }
  return { status: "up", message: "answered without errors" };
}

function told(errors) {
  if (errors.length === 0) return "no data and no error";
  const first = errors[0]?.message ?? "no message";
  return errors.length === 1 ? `error: ${first}` : `${errors.length} errors, the first: ${first}`;
}

// The value at a path such as shop.orders.0.state; undefined when it is not there.
function at(data, path) {
  return path.split(".").reduce((value, name) => (Object.hasOwn(Object(value), name) ? value[name] : undefined), data);
}

// Whether two JSON values are the same, whatever the order of their keys.
function same(a, b) {
  if (a === null || b === null || typeof a !== "object" || typeof b !== "object") return a === b;
  const keys = Object.keys(a);
  return Array.isArray(a) === Array.isArray(b) && keys.length === Object.keys(b).length &&
    keys.every((key) => Object.hasOwn(b, key) && same(a[key], b[key]));
}
