// One session, read at once: what it is called, how it stands, and its items.

import { exactly, pretty } from "./answer.js";
import { badge, element, kept, titled, titleOf, unfolding } from "./element.js";
import { call, calledOf, choose, note } from "./memory.js";
import { requestOf, send } from "./request.js";
import { COLOURS, moment, trouble, wheres } from "./sessions.js";

const PATH = "/v1/sessions/{session}";
const MOST_ITEMS = 200;
const MOST_OPEN = 3;
const MOST_SHOWN = 20_000;
const NEXT = [["PATCH", ""], ["POST", "/undo"], ["GET", "/history"], ["POST", "/preview"], ["GET", ""]];

const fact = (name, ...value) => [element("dt", {}, name), element("dd", {}, value)];

function itemOf(item, open) {
  const title = [element("code", {}, item.key), element("span", { className: "quiet" }, ` changed at version ${item.version}`)];
  return element("li", {}, unfolding(title, () => {
    const text = pretty(JSON.stringify(item.body));
    return [element("pre", { tabIndex: 0 }, text.slice(0, MOST_SHOWN)), text.length > MOST_SHOWN ? element("p", { className: "quiet" }, "Only its beginning is shown.") : ""];
  }, open));
}

function wholeOf(session) {
  const items = session.items.slice(0, MOST_ITEMS);
  const cut = items.length < session.items.length ? element("p", { className: "quiet" }, `The first ${MOST_ITEMS} are shown.`) : "";
  return [
    element("dl", { className: "headers" },
      fact("id", element("code", {}, session.id)), fact("kind", session.kind), fact("owner", session.owner),
      fact("made", moment(session.created)), fact("changed", moment(session.updated)), session.expires ? fact("expires", moment(session.expires)) : ""),
    element("h2", {}, `Items (${session.items.length})`),
    session.items.length ? element("ul", { className: "items" }, items.map((one, at) => itemOf(one, at < MOST_OPEN))) : element("p", {}, "It has none yet."), cut];
}

/** The page of a session. Reading is harmless, so that nobody has to press a button for it. */
export function drawSession(operations, id) {
  const find = (method, end) => operations.find((one) => one.method === method && one.path === PATH + end);
  const reader = find("GET", "");
  const heading = element("h1", { tabIndex: -1 }, calledOf(id) === undefined ? "Session" : titleOf(calledOf(id)));
  const place = element("div", { className: "whole" });
  const status = element("p", { role: "status" }, "Reading…");
  const look = async () => {
    try {
      const request = requestOf(reader, [[reader.parameters.find((one) => one.in === "path"), id]]);
      const response = await send(request);
      status.replaceChildren();
      if (!response.ok) return [await trouble(response)];
      choose(id);
      note(request, response);
      go.hidden = false;
      const session = exactly(await response.text());
      call(session.id, session.title);
      heading.replaceChildren(titleOf(session.title));
      if (heading.isConnected) document.title = document.title.replace(/^.*(?= · )/s, () => titled(session.title));
      status.append(badge(session.status, COLOURS[session.status] ?? "failed"), ` version ${session.version}`, ...wheres(session));
      return wholeOf(session);
    } catch {
      status.replaceChildren();
      return [element("p", { className: "trouble" }, "The service does not answer. Is it still running? Then read it again.")];
    }
  };
  const next = NEXT.map(([method, end]) => find(method, end)).filter(Boolean);
  const go = element("section", { "aria-label": "Go on with it", hidden: true }, element("h2", {}, "Go on with it"), element("ul", { className: "next" }, next.map((one) =>
    element("li", {}, element("a", { href: `#/${one.id}` }, badge(one.method, one.method.toLowerCase()), one.summary)))));
  const again = element("button", { type: "button" }, "Read it again");
  const read = async () => place.replaceChildren(...kept(await look()));
  again.addEventListener("click", read);
  if (reader) read();
  return [heading, status, element("div", { className: "line" }, again, element("a", { href: "#/" }, "All sessions")), place, go];
}
