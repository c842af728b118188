// What the page remembers from one answer to the next request: the values of path parameters, each session's title and ETag.

const values = new Map();
const tags = new Map();
const titles = new Map();

const sessionIn = (address) => /\/sessions\/([^/?#]+)/.exec(address ?? "")?.[1];

/** A session's id is one value, whatever the route calls it. */
const nameOf = (operation, parameter) => (operation.path.includes(`/sessions/{${parameter}}`) ? "session" : parameter);

export const remember = (operation, parameter, value) => value && values.set(nameOf(operation, parameter), value);
export const recall = (operation, parameter) => values.get(nameOf(operation, parameter)) ?? "";
export const choose = (session) => values.set("session", session);

/** What sessions are called, by their ids, where an answer has said so. */
export const call = (session, title) => titles.set(session, title);
export const calledOf = (session) => titles.get(session);

/** Whether a parameter is a session's id. */
export const isSession = (operation, parameter) => nameOf(operation, parameter) === "session";

/** The last ETag seen of the session that a path names, "" where none was. */
export const tagOf = (path) => tags.get(sessionIn(path)) ?? "";

/** Note what an answer says: a session's tag, and a session just made as the one to go on with. */
export function note(request, response) {
  if (!response.ok) return;
  const made = sessionIn(response.headers.get("location"));
  if (made && response.status === 201) choose(made);
  const session = made ?? sessionIn(request.address.pathname);
  if (session && response.headers.has("etag")) tags.set(session, response.headers.get("etag"));
}
