// The start panel: the newest sessions, and a first one for whoever has none.

import { badge, element, titleOf } from "./element.js";
import { call, choose, note } from "./memory.js";
import { addressOf, send } from "./request.js";
import { examplesOf } from "./schema.js";

const LIST = "/v1/sessions";
const JSON_TYPE = "application/json";
export const COLOURS = { draft: "moved", published: "good", locked: "refused" };

/** What went wrong, in plain words. */
export async function trouble(response) {
  const said = await response.json().catch(() => ({}));
  return element("p", { className: "trouble" }, `${said.title ?? "That did not work"} (${response.status}). ${said.detail ?? ""}`);
}

/** A moment as the reader's country writes it, exact in the tooltip. */
export const moment = (at) => element("time", { dateTime: at, title: at }, new Date(at).toLocaleString());

/** Badges for a session that rests, and for one that may have a newer state than what is shown. */
export const wheres = (session) => [
  ...(session.tier === "active" ? [] : [" ", badge(session.tier, "get")]),
  ...(session.stale ? [" ", badge("stale: there may be a newer state", "refused")] : [])];

function line(session, reader) {
  call(session.id, session.title);
  const title = reader ? element("a", { href: `#/session/${session.id}` }, titleOf(session.title)) : titleOf(session.title);
  title.addEventListener("click", () => choose(session.id));
  return element("li", {}, title, element("span", {}, badge(session.status, COLOURS[session.status] ?? "failed"), ` version ${session.version}`, ...wheres(session)),
    element("span", { className: "quiet" }, `${session.kind} · made `, moment(session.created), " · changed ", moment(session.updated)));
}

/** The panel; `operations` are those of the document, so that nothing is offered that this service has not. */
export function drawSessions(operations) {
  const find = (method, path) => operations.find((one) => one.method === method && one.path.replace(/\{\w+\}/, "*") === path);
  const [lister, maker, reader] = [find("GET", LIST), find("POST", LIST), find("GET", `${LIST}/*`)];
  if (!lister) return [];
  const [first] = Object.values(examplesOf(maker?.bodies[JSON_TYPE] ?? {}));
  const list = element("div", { role: "status" }, element("p", { className: "quiet" }, "Looking…"));
  const make = element("button", { type: "button", className: "main", hidden: !first }, "Make a first session");
  const again = element("button", { type: "button" }, "Look again");
  const ask = async (request, then) => {
    try {
      const response = await send(request);
      list.replaceChildren(...(response.ok ? await then(response) : [await trouble(response)]));
    } catch {
      list.replaceChildren(element("p", { className: "trouble" }, "The service does not answer. Is it still running? Then look again."));
    }
  };
  const look = () => ask({ method: "GET", address: addressOf(`${LIST}?limit=20`), headers: {} }, async (response) => {
    const page = await response.json();
    make.textContent = page.sessions.length ? "Make another small session" : "Make a first session";
    if (!page.sessions.length) return [element("p", {}, "There is no session yet that you may see. Make one: a small draft, yours alone.")];
    const more = page.cursor ? [element("p", { className: "quiet" }, "There are more: ", element("a", { href: `#/${lister.id}` }, lister.summary), " pages through them.")] : [];
    return [element("ul", { className: "sessions" }, page.sessions.map((one) => line(one, reader))), ...more];
  });
  make.addEventListener("click", () => {
    const request = { method: "POST", address: addressOf(LIST), headers: { "Content-Type": JSON_TYPE }, body: { media: JSON_TYPE, text: JSON.stringify(first) } };
    return ask(request, async (response) => {
      note(request, response);
      await look();
      return [...list.childNodes];
    });
  });
  again.addEventListener("click", look);
  look();
  return [element("section", { "aria-label": "Sessions" }, element("h2", {}, "Sessions, the last made first"), list, element("div", { className: "line" }, make, again))];
}
