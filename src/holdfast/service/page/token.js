// The bearer token: it comes in the fragment of the address, which never reaches a server, and stays in this tab.

const NAME = "holdfast.token";

/** The token of a text that is one, or of an address that carries one. */
const within = (text) => (/(?:^|[#&?])token=([^&\s]+)/.exec(text)?.[1] ?? text).trim();

/** Take the token out of the address, at once, so that it is neither seen nor kept there. */
export function take() {
  if (!location.hash.includes("token=")) return false;
  keep(decodeURIComponent(within(location.hash)));
  history.replaceState(null, "", location.pathname + location.search);
  return true;
}

export const keep = (text) => sessionStorage.setItem(NAME, within(text));
export const current = () => sessionStorage.getItem(NAME);
export const forget = () => sessionStorage.removeItem(NAME);
