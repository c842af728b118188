// One route, whole: what it does, the form to try it, its answers.

import { show } from "./answer.js";
import { badge, copier, element, prose, sortOf, unfolding, worded } from "./element.js";
import { formOf } from "./form.js";
import { codesOf, streams } from "./operation.js";
import { curlOf } from "./request.js";
import { drawn, examplesOf } from "./schema.js";

const pre = (value) => element("pre", { tabIndex: 0 }, typeof value === "string" ? value : JSON.stringify(value, null, 2));

/** What may be answered: statuses, problem codes, examples, schemas. */
function answersOf(operation) {
  return operation.answers.map((answer) => {
    const codes = codesOf(answer);
    const words = codes.length ? codes.map((code) => [element("code", {}, code), " "]) : worded(answer.description ?? "");
    return unfolding([badge(answer.status, sortOf(answer.status)), " ", words], () => {
      const headers = Object.entries(answer.headers ?? {}).map(([name, one]) => element("p", {}, element("code", {}, name), " ", worded(one.description ?? "")));
      const media = Object.entries(answer.content ?? {}).map(([type, content]) => [
        element("p", { className: "quiet" }, type),
        Object.entries(examplesOf(content)).map(([name, value]) => unfolding(name === "example" ? "Example" : ["Example: ", element("code", {}, name)], () => pre(value), true)),
        content.schema ? unfolding("Schema", () => drawn(content.schema)) : "",
      ]);
      return headers.length + media.length ? [headers, media] : element("p", { className: "quiet" }, "No body.");
    });
  });
}

/** The page of one route. */
export function drawRoute(operation) {
  const form = formOf(operation);
  const line = element("pre", { tabIndex: 0 });
  const place = element("section", { className: "answer", "aria-label": "Answer" });
  const refresh = () => (line.textContent = curlOf(form.read(), streams(operation)));
  const shown = element("form", { className: "try", autocomplete: "off" }, form.parts,
    element("div", { className: "line" }, element("button", { type: "submit", className: "main" }, "Send"), element("span", { className: "quiet keys" }, "or Ctrl + Enter")));
  shown.addEventListener("submit", async (event) => {
    event.preventDefault();
    form.settle();
    await show(place, form.read());
    form.settle();
    refresh();
  });
  shown.addEventListener("keydown", (event) => event.key === "Enter" && (event.ctrlKey || event.metaKey) && shown.requestSubmit());
  for (const kind of ["input", "change", "click"]) {
    shown.addEventListener(kind, () => {
      form.settle();
      refresh();
    });
  }
  refresh();
  const right = operation.verb === "open" ? "Open to everybody." : ["Needs the right to ", element("code", {}, operation.verb), "."];
  const schemas = Object.entries(operation.bodies).filter(([, content]) => content.schema);
  return element("div", { className: "route" },
    element("div", { className: "ask" },
      element("h1", { tabIndex: -1 }, operation.summary),
      element("p", { className: "path" }, badge(operation.method, operation.method.toLowerCase()), " ", element("code", {}, operation.path)),
      prose(operation.description),
      operation.verb ? element("p", { className: "quiet" }, right) : "",
      shown),
    element("div", { className: "got" }, place,
      element("section", { "aria-label": "For a terminal" }, element("div", { className: "over" }, element("h2", {}, "For a terminal"), copier(() => line.textContent, line)), line)),
    element("div", { className: "told" },
      schemas.length ? element("h2", {}, "What the body may be") : "",
      schemas.map(([media, content]) => unfolding(media, () => drawn(content.schema))),
      element("h2", {}, "What may be answered"),
      answersOf(operation)));
}
