// The page of the service: everything on it is drawn from /openapi.json, so nothing is listed twice.

import { stop } from "./answer.js";
import { badge, element, prose } from "./element.js";
import { grouped, operationsOf } from "./operation.js";
import { addressOf, send } from "./request.js";
import { drawRoute } from "./route.js";
import { readFrom } from "./schema.js";
import { drawSession } from "./session.js";
import { drawSessions } from "./sessions.js";
import * as token from "./token.js";

const [main, routes, groups, filter, none, menu, forget, about] =
  ["main", "routes", "groups", "filter", "none", "menu", "forget", "about"].map((id) => document.getElementById(id));
let described;
let operations = [];

/** Ask for a token, and say why. */
function askForToken(why) {
  const field = element("input", { id: "token", type: "password", autocomplete: "off", spellcheck: false, required: true });
  const form = element("form", { className: "try" },
    element("label", { htmlFor: "token" }, "Token, or the whole address that ", element("code", {}, "holdfast serve"), " printed"),
    element("div", { className: "controls" }, field, element("button", { type: "submit", className: "main" }, "Use it")),
    element("p", { className: "quiet" }, "It stays in this tab, and is forgotten with it."));
  form.addEventListener("submit", (event) => {
    event.preventDefault();
    token.keep(field.value);
    load();
  });
  forget.hidden = true;
  main.replaceChildren(element("h1", {}, "Who are you?"), element("p", {}, why), form);
  field.focus();
}

/** Read the document, and draw the page from it. */
async function load() {
  described = undefined;
  stop();
  forget.hidden = !token.current();
  routes.hidden = menu.hidden = true;
  about.textContent = "";
  if (!token.current()) {
    askForToken("Holdfast answers only those it knows, and this tab has no token.");
    return;
  }
  try {
    const response = await send({ method: "GET", address: addressOf("/openapi.json"), headers: {} });
    if (response.status === 401) {
      token.forget();
      askForToken("The service does not believe this token: it may be another service's, or past its time.");
      return;
    }
    if (!response.ok) throw new Error(`status ${response.status}`);
    described = await response.json();
  } catch (error) {
    const again = element("button", { type: "button", className: "main" }, "Try again");
    again.addEventListener("click", load);
    main.replaceChildren(element("h1", {}, "The service does not answer"), element("p", {}, `Is it still running? (${error.message})`), again);
    return;
  }
  readFrom(described);
  operations = operationsOf(described);
  about.textContent = described.info.version;
  routes.hidden = menu.hidden = false;
  drawGroups();
  draw();
}

function drawGroups() {
  groups.replaceChildren(...grouped(operations, described).map(([tag, inside]) =>
    element("section", {}, element("h2", {}, tag), element("ul", {}, inside.map((one) =>
      element("li", { "data-path": one.path, "data-words": `${one.method} ${one.path} ${one.summary} ${tag}`.toLowerCase() },
        element("a", { href: `#/${one.id}`, title: `${one.method} ${one.path}` }, badge(one.method, one.method.toLowerCase()), element("span", {}, one.summary, element("code", {}, broken(one.path))))))))));
  sift();
}

/** A path that may go on in a new line after each of its parts. */
const broken = (path) => path.split(/(?=\/)/).flatMap((part) => [part, element("wbr")]);

/** Whether an address as it was sent, ids and all, is one of a route's path. */
function fits(path, word) {
  const sent = word.replace(/^\w+:\/\/[^/]+/, "").replace(/[?#].*/, "");
  return sent.startsWith("/") && new RegExp(`^${path.replaceAll(".", "\\.").replaceAll(/\{\w+\}/g, "[^/]+")}$`, "i").test(sent);
}

/** Show the routes that have all words of the filter; a whole address finds its route. */
function sift() {
  const words = filter.value.toLowerCase().split(/\s+/);
  for (const entry of groups.querySelectorAll("li")) {
    entry.hidden = !words.every((word) => entry.dataset.words.includes(word) || fits(entry.dataset.path, word));
  }
  for (const group of groups.children) group.hidden = !group.querySelector("li:not([hidden])");
  none.hidden = Boolean(groups.querySelector("li:not([hidden])"));
}

/** Draw what the fragment of the address names: a route, or the start. */
function draw(moved = false) {
  stop();
  const wanted = decodeURIComponent(location.hash.slice(2));
  const operation = operations.find((one) => one.id === wanted);
  const session = /^session\/(.+)$/.exec(wanted)?.[1];
  for (const link of groups.querySelectorAll("a")) {
    if (link.hash === location.hash) link.setAttribute("aria-current", "page");
    else link.removeAttribute("aria-current");
  }
  document.title = `${operation?.summary ?? (session ? "Session" : "Start")} · ${described.info.title}`;
  const start = () => [element("h1", { tabIndex: -1 }, described.info.title), ...prose(described.info.description), ...drawSessions(operations)];
  main.replaceChildren(...(operation ? [drawRoute(operation)] : session ? drawSession(operations, session) : start()));
  open(false);
  if (moved) {
    scrollTo(0, 0);
    main.querySelector("h1").focus({ preventScroll: true });
  }
}

function open(wanted) {
  menu.setAttribute("aria-expanded", wanted);
  if (wanted) filter.focus();
}

filter.addEventListener("input", sift);
document.querySelector(".skip").addEventListener("click", (event) => {
  event.preventDefault(); // the fragment of the address names the route
  main.focus();
});
menu.addEventListener("click", () => open(menu.getAttribute("aria-expanded") !== "true"));
forget.addEventListener("click", () => {
  token.forget();
  load();
});
addEventListener("hashchange", () => {
  if (token.take()) load();
  else if (described) draw(true);
});

token.take();
load();
