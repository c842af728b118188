// The operations of the OpenAPI document: what can be asked of the service.

import { examplesOf, resolve } from "./schema.js";

const METHODS = ["get", "put", "post", "patch", "delete", "head", "options"];

/** Every operation, in the order of the document. */
export function operationsOf(document) {
  return Object.entries(document.paths ?? {}).flatMap(([path, item]) =>
    METHODS.filter((method) => item[method]).map((method) => {
      const said = item[method];
      return {
        id: said.operationId ?? `${method}:${path}`,
        method: method.toUpperCase(),
        path,
        tag: said.tags?.[0] ?? "other",
        summary: said.summary ?? path,
        description: said.description ?? "",
        verb: said["x-holdfast-verb"],
        parameters: [...(item.parameters ?? []), ...(said.parameters ?? [])].map(resolve),
        bodies: resolve(said.requestBody).content ?? {},
        bodyRequired: resolve(said.requestBody).required ?? false,
        needsTag: Boolean(said.responses?.[428]),
        answers: Object.entries(said.responses ?? {}).map(([status, answer]) => ({ status, ...resolve(answer) })),
      };
    }));
}

/** Operations by tag, tags in the order of the document. */
export function grouped(operations, document) {
  const groups = new Map((document.tags ?? []).map((tag) => [tag.name, []]));
  for (const operation of operations) groups.set(operation.tag, [...(groups.get(operation.tag) ?? []), operation]);
  return [...groups].filter(([, inside]) => inside.length);
}

/** Whether an operation answers with a stream of events. */
export const streams = (operation) => operation.answers.some((answer) => answer.content?.["text/event-stream"]);

/** The stable codes of the problems that an answer may carry: its examples have one each. */
export function codesOf(answer) {
  const media = answer.content?.["application/problem+json"];
  return media ? [...new Set(Object.values(examplesOf(media)).map((one) => one?.code).filter(Boolean))] : [];
}
