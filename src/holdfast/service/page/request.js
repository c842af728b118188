// A request: what the form says, as it is sent and as a line for a terminal.

import { current } from "./token.js";

/** The address of a path of the document, below wherever this page was served from. */
export const addressOf = (path) => new URL(`.${path}`, document.baseURI);

const segment = (value) => encodeURIComponent(value).replaceAll("%2F", "/");

/**
 * The request that an operation's filled-in form stands for.
 * `values` are `[parameter, text]` pairs; `body` is undefined, or `{ media, text }` or `{ media, parts }`.
 */
export function requestOf(operation, values, body) {
  let path = operation.path;
  const query = new URLSearchParams();
  const headers = {};
  for (const [parameter, text] of values) {
    if (parameter.in === "path") path = path.replace(`{${parameter.name}}`, segment(text || `{${parameter.name}}`));
    else if (text === "") continue;
    else if (parameter.in === "header") headers[parameter.name] = text;
    else query.append(parameter.name, text);
  }
  const address = addressOf(path);
  address.search = query;
  if (body && !body.parts) headers["Content-Type"] = body.media;
  return { method: operation.method, address, headers, body };
}

/** Send a request with the token of this tab; the browser's cache and cookies take no part. */
export function send(request, signal) {
  const token = current();
  const headers = { ...request.headers, ...(token && { Authorization: `Bearer ${token}` }) };
  let body = request.body?.text;
  if (request.body?.parts) {
    body = new FormData();
    for (const [name, value] of request.body.parts) body.append(name, value);
  }
  return fetch(request.address, { method: request.method, headers, body, signal, cache: "no-store", credentials: "omit" });
}

const quoted = (text) => `'${text.replaceAll("'", "'\\''")}'`;

/** The same request for curl; the token is read from `$HOLDFAST_TOKEN`. */
export function curlOf(request, streaming) {
  const how = { GET: "", HEAD: " --head" }[request.method] ?? ` -X ${request.method}`;
  const lines = [`curl -i${streaming ? "N" : ""}${how} ${quoted(request.address.href)}`, '-H "Authorization: Bearer $HOLDFAST_TOKEN"'];
  for (const [name, value] of Object.entries(request.headers)) lines.push(`-H ${quoted(`${name}: ${value}`)}`);
  if (request.body?.text !== undefined) lines.push(`--data-raw ${quoted(request.body.text)}`);
  for (const [name, value] of request.body?.parts ?? []) {
    if (value instanceof File) lines.push(`-F ${quoted(`${name}=@"${value.name.replaceAll(/["\\]/g, "\\$&")}"`)}`);
    else lines.push(`--form-string ${quoted(`${name}=${value}`)}`);
  }
  return lines.join(" \\\n  ");
}
