// What a script finds besides the language itself. It is evaluated before the script, which finds the names of globals
// that are set here and nothing else. The functions of host are those of host.go: one that fails returns false, and
// host.reason() then says why, as JSON. What comes out of a script is used through intrinsics that were taken before it
// ran, so that a script that changes them confuses only itself.
(function (host) {
  "use strict";
  const { parse, stringify } = JSON;
  const { isArray } = Array;
  const { Error, TypeError, Uint8Array, Uint32Array, ArrayBuffer } = globalThis;
  const { isView } = ArrayBuffer;
  const quiet = { value: undefined, writable: true, configurable: true, enumerable: false };

  const define = (name, value) => Object.defineProperty(globalThis, name, { ...quiet, value });

  // Text

  const bytesOf = (data) => {
    if (data instanceof ArrayBuffer) return [data, 0, data.byteLength];
    if (isView(data)) return [data.buffer, data.byteOffset, data.byteLength];
    throw new TypeError("expected a Uint8Array or an ArrayBuffer, got " + show(data));
  };

  class TextEncoder {
    get encoding() { return "utf-8"; }
    encode(text = "") { return new Uint8Array(host.encode(`${text}`)); }
  }

  // How many bytes at the end of a piece begin a character of which the next piece has the rest.
  const unfinished = (bytes) => {
    for (let n = 1; n <= 3 && n <= bytes.length; n++) {
      const b = bytes[bytes.length - n];
      if (b < 0x80) return 0;
      if (b >= 0xc0) return n < (b >= 0xf0 ? 4 : b >= 0xe0 ? 3 : 2) ? n : 0;
    }
    return 0;
  };

  class TextDecoder {
    #rest = new Uint8Array(0);
    #begun = false;
    constructor(label = "utf-8", { fatal = false, ignoreBOM = false } = {}) {
      if (!["utf-8", "utf8", "unicode-1-1-utf-8"].includes(`${label}`.trim().toLowerCase())) {
        throw new RangeError(`the encoding ${label} is not there; utf-8 is`);
      }
      this.encoding = "utf-8";
      this.fatal = Boolean(fatal);
      this.ignoreBOM = Boolean(ignoreBOM);
    }
    decode(data = new ArrayBuffer(0), { stream = false } = {}) {
      let bytes = new Uint8Array(...bytesOf(data));
      if (this.#rest.length > 0) {
        const whole = new Uint8Array(this.#rest.length + bytes.length);
        whole.set(this.#rest);
        whole.set(bytes, this.#rest.length);
        bytes = whole;
      }
      const cut = stream ? unfinished(bytes) : 0;
      this.#rest = bytes.slice(bytes.length - cut);
      let text = host.decode(bytes.buffer, bytes.byteOffset, bytes.length - cut, this.fatal);
      if (text === false) throw new TypeError("the data is not UTF-8");
      if (!this.#begun && !this.ignoreBOM && text[0] === "\uFEFF") text = text.slice(1);
      this.#begun = stream && (this.#begun || text !== "");
      return text;
    }
  }

  define("TextEncoder", TextEncoder);
  define("TextDecoder", TextDecoder);

  // Randomness. The engine's own generator would give the same numbers in every call, as it is part of the snapshot.

  let pool = null, next = 0;
  define("crypto", Object.freeze({
    getRandomValues(array) {
      const bytes = new Uint8Array(array.buffer, array.byteOffset, array.byteLength);
      for (let at = 0; at < bytes.length; at += 256) {
        bytes.set(new Uint8Array(host.random(), 0, Math.min(256, bytes.length - at)), at);
      }
      return array;
    },
  }));
  Object.defineProperty(Math, "random", { ...quiet, value: function random() {
    if (pool === null || next === pool.length) {
      pool = new Uint32Array(host.random());
      next = 0;
    }
    return ((pool[next++] >>> 5) * 0x4000000 + (pool[next++] >>> 6)) / 0x20000000000000;
  } });

  // The log

  const show = (value) => {
    if (typeof value === "string") return value;
    if (value instanceof Error) return `${value.name}: ${value.message}`;
    if (typeof value === "function") return `function ${value.name}`;
    if (typeof value === "object") {
      try {
        return stringify(value) ?? String(value);
      } catch { /* a cycle, or a BigInt */ }
    }
    try {
      return String(value);
    } catch {
      return "an object";
    }
  };
  const write = (level, values) => { host.log(level, values.map(show).join(" ")); };
  const levels = { __proto__: null, error: "E", warn: "W", warning: "W", info: "I", debug: "D" };
  const log = (level, ...values) => {
    if (values.length > 0 && levels[level]) write(levels[level], values);
    else write("I", [level, ...values]);
  };
  define("console", Object.freeze({
    error: (...values) => write("E", values),
    warn: (...values) => write("W", values),
    info: (...values) => write("I", values),
    log: (...values) => write("I", values),
    debug: (...values) => write("D", values),
  }));

  // The network

  class NetError extends Error {
    constructor({ message, kind, op, path }) {
      super(message);
      this.kind = kind;
      this.op = op;
      this.path = path;
    }
  }
  Object.defineProperty(NetError.prototype, "name", { ...quiet, value: "NetError" });
  const checked = (result) => {
    if (result === false) throw new NetError(parse(host.reason()));
    return result;
  };

  class File {
    #fd;
    constructor(path) { this.#fd = checked(host.open(`${path}`)); }

    // At most n bytes, as soon as there are any; null at the end.
    read(n = 65536) {
      const data = checked(host.read(this.#fd, n));
      return data === null ? null : new Uint8Array(data);
    }

    // Everything up to the end.
    readText() {
      const decoder = new TextDecoder();
      let text = "", piece;
      while ((piece = this.read()) !== null) text += decoder.decode(piece, { stream: true });
      return text + decoder.decode();
    }

    // All of a string, as UTF-8, or of bytes.
    write(data) {
      if (typeof data === "string") checked(host.write(this.#fd, data));
      else checked(host.write(this.#fd, ...bytesOf(data)));
    }

    close() { host.close(this.#fd); }
  }

  const http = (request) => {
    if (typeof request === "string") request = { url: request };
    if (typeof request !== "object" || request === null) {
      throw new TypeError("tocsin.http needs an object such as {url: \"https://example.com\"}, got " + show(request));
    }
    const { body } = request;
    if (body instanceof ArrayBuffer || isView(body)) {
      request = { ...request, body: undefined, body_base64: host.base64(...bytesOf(body)) };
    }
    return parse(checked(host.http(stringify(request))));
  };

  define("tocsin", Object.freeze({ http, open: (path) => new File(path), log, NetError }));

  // What the host calls

  // A fault of the script that it did not throw itself.
  class Fault extends Error {}

  const answer = (result) => {
    if (typeof result !== "object" || result === null || isArray(result)) {
      const got = isArray(result) ? "a list" : typeof result === "string" ? stringify(result) : show(result);
      throw new Fault(`returned ${got}, not an object`);
    }
    // JSON has no such numbers, the contract has words for them.
    const text = stringify(result, (_, v) => (typeof v === "number" && (v - v !== 0) ? `${v}` : v));
    if (text === undefined) throw new Fault("returned an object that has no JSON");
    return text;
  };
  const later = async (promise) => answer(await promise);

  const calls = { __proto__: null };

  return {
    // Takes what the script exports and says which calls it answers.
    adopt(exports) {
      const adopted = (call) => {
        if (!(call in exports)) return "";
        if (typeof exports[call] !== "function") throw new Fault(`exports ${call}, which is no function`);
        calls[call] = exports[call];
        return call;
      };
      return `${adopted("check")} ${adopted("notify")}`;
    },

    // Makes a call: the response as JSON, or a promise of it.
    call(call, request) {
      pool = null;
      const result = (0, calls[call])(parse(request));
      return typeof result?.then === "function" ? later(result) : answer(result);
    },

    // One line that says what was thrown, and where, and behind it the stack as far as it is the script's.
    describe(doing, thrown) {
      if (thrown instanceof Fault) return `${doing} ${thrown.message}`;
      if (!(thrown instanceof Error)) return `${doing} threw ${show(thrown)}`;
      const stack = `${thrown.stack ?? ""}`.split("\n").filter((line) => !line.includes("<tocsin>:"));
      const at = /([^()\s]+:\d+:\d+)\)?$/.exec(stack.find((line) => /:\d+:\d+\)?$/.test(line)) ?? "")?.[1];
      const line = `${doing} threw ${thrown.name}: ${thrown.message}`.replace(/\s+/g, " ");
      return line + (at ? ` (${at})` : "") + "\n" + stack.join("\n");
    },
  };
})
