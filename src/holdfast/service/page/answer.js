// The answer to a request: its status, the headers that matter, its body; a stream of events while it lasts.

import { badge, copier, element, escaped, kept, sortOf, unfolding } from "./element.js";
import { note } from "./memory.js";
import { send } from "./request.js";
import { eventsOf } from "./stream.js";

const MATTER = ["etag", "location", "retry-after", "sunset", "preference-applied", "idempotency-replayed"];
const MOST_SHOWN = 200_000;
const MOST_EVENTS = 500;

let running;

/** Give up the request that is under way, if there is one. */
export const stop = () => running?.abort();

/** JSON read so that a number keeps its digits when it is written again, also where JavaScript has none such. */
export const exactly = (text) => JSON.parse(text, (key, value, context) => {
  const said = typeof value === "number" ? context?.source : undefined;
  return said && said !== String(value) && JSON.rawJSON ? JSON.rawJSON(said) : value;
});

/** JSON made pretty. What cannot be seen is escaped: it is the same JSON still. */
export function pretty(text) {
  try {
    return JSON.stringify(exactly(text), null, 2).replace(/[^\n]+/g, escaped);
  } catch {
    return text;
  }
}

const size = (bytes) => (bytes < 1000 ? `${bytes} bytes` : bytes < 1e6 ? `${(bytes / 1e3).toFixed(1)} kB` : `${(bytes / 1e6).toFixed(1)} MB`);

function headersOf(response) {
  const all = [...response.headers];
  const list = (pairs) => element("dl", { className: "headers" }, pairs.map(([name, value]) => [element("dt", {}, name), element("dd", {}, value)]));
  const matter = all.filter(([name]) => MATTER.includes(name) || name.startsWith("holdfast-"));
  return [matter.length ? list(matter) : "", unfolding(`All ${all.length} headers`, () => list(all))];
}

/** A body: text as text, JSON pretty, anything else to be saved. */
async function bodyOf(response) {
  const type = response.headers.get("content-type") ?? "";
  const blob = await response.blob();
  if (blob.size === 0) return [blob.size, element("p", { className: "quiet" }, "No body.")];
  const save = element("a", { href: URL.createObjectURL(blob), download: "answer" }, `Save the whole body (${size(blob.size)})`);
  if (!/json|^text\/|xml/.test(type)) return [blob.size, element("p", {}, save)];
  const whole = await blob.text();
  const text = /json/.test(type) && !/ndjson|json-seq/.test(type) ? pretty(whole) : whole;
  const shown = element("pre", { tabIndex: 0 }, text.slice(0, MOST_SHOWN));
  const cut = text.length > MOST_SHOWN ? element("p", {}, `The first ${MOST_SHOWN.toLocaleString("en")} characters are shown. `, save) : "";
  return [blob.size, [element("div", { className: "over" }, copier(() => text, shown)), shown, cut]];
}

async function follow(response, say, place) {
  const list = element("ol", { className: "events" });
  place.append(list);
  let count = 0;
  let beats = 0;
  for await (const { event = "message", id, data, comment } of eventsOf(response.body)) {
    if (data === undefined && comment !== undefined) beats += 1;
    else {
      count += 1;
      const title = [badge(event, "moved"), id ? element("span", { className: "quiet" }, ` id ${id}`) : ""];
      list.prepend(element("li", {}, title, element("pre", { tabIndex: 0 }, pretty(data ?? ""))));
      if (list.childElementCount > MOST_EVENTS) list.lastChild.remove();
    }
    say(`live · ${count} event${count === 1 ? "" : "s"}${beats ? ` · ${beats} heartbeat${beats === 1 ? "" : "s"}` : ""}, the newest first`);
  }
}

const calmly = matchMedia("(prefers-reduced-motion: reduce)");

/** Bring an answer into view, unless all of it is: its beginning to the top. */
function present(place) {
  const { top, bottom } = place.getBoundingClientRect();
  if (top < 0 || bottom > innerHeight) place.scrollIntoView({ block: "start", behavior: calmly.matches ? "auto" : "smooth" });
}

/** Send a request and show its answer; gives the response, or undefined where there was none. */
export async function show(place, request) {
  stop();
  const mine = (running = new AbortController());
  const words = element("span", {}, "Sending…");
  const status = element("p", { className: "status", role: "status", id: "status" }, words);
  const heading = element("h2", { tabIndex: -1, "aria-describedby": "status" }, "Answer");
  const halt = element("button", { type: "button", className: "small" }, "Stop");
  halt.addEventListener("click", () => mine.abort());
  const held = document.activeElement;
  // Who reads by ear or keyboard goes on at the answer; who has gone elsewhere meanwhile is left there.
  const arrive = () => {
    if ([held, halt, document.body].includes(document.activeElement)) heading.focus({ preventScroll: true });
    present(place);
  };
  place.replaceChildren(heading, element("div", { className: "line" }, status, halt));
  place.scrollIntoView({ block: "nearest" });
  const began = performance.now();
  let response;
  try {
    response = await send(request, mine.signal);
    const took = `${Math.round(performance.now() - began)} ms`;
    note(request, response);
    status.prepend(badge(`${response.status} ${response.statusText}`.trim(), sortOf(response.status)), " ");
    words.textContent = took;
    place.append(...kept(headersOf(response)));
    if (response.headers.get("content-type")?.startsWith("text/event-stream")) {
      arrive();
      await follow(response, (text) => (words.textContent = text), place);
      words.textContent += " · the service ended it";
    } else {
      const [bytes, shown] = await bodyOf(response);
      words.textContent = `${took} · ${size(bytes)}`;
      place.append(...kept(shown));
      arrive();
    }
  } catch (error) {
    if (mine.signal.aborted) words.textContent += " · stopped";
    else words.textContent += ` No answer came, or not to its end (${error.message}). Is the service running? The outcome of a write is unknown: send it again with the same Idempotency-Key.`;
    if (!response && !mine.signal.aborted) arrive();
  }
  halt.remove();
  return response;
}
