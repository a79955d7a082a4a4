// The server's answers: requests one after another where their order matters, and its events, shared by all tabs.

const API = "api";

class ServerError extends Error {}

/** Ask the server; JSON in and out. Raises ServerError with the server's own words. */
export async function ask(method, path, body) {
  const options = { method, headers: {} };
  if (body instanceof FormData) options.body = body;
  else if (body !== undefined) {
    options.headers["Content-Type"] = "application/json";
    options.body = JSON.stringify(body);
  }
  let answer;
  try {
    answer = await fetch(`${API}/${path}`, options);
  } catch {
    throw new ServerError("The server does not answer. Is it still running? What was saved stays saved.");
  }
  if (!answer.ok) throw new ServerError(await reasonOf(answer));
  return answer.status === 204 ? null : answer.json();
}

async function reasonOf(answer) {
  try {
    const { error, detail } = await answer.json();
    return String(error ?? detail ?? answer.statusText);
  } catch {
    return `${answer.status} ${answer.statusText}`;
  }
}

let last = Promise.resolve();

/** Like ask, after every earlier change has been answered: what is done first counts first. */
export function change(method, path, body) {
  const answer = last.then(() => ask(method, path, body));
  last = answer.catch(() => {});
  return answer;
}

export const pictureUrl = (id, what) => `${API}/pictures/${encodeURIComponent(id)}/${what}`;

/** Address of a mask; `look` changes with whatever else changes its pixels (threshold, colours). */
export const maskUrl = (picture, size, look) =>
  `${pictureUrl(picture.id, "mask")}?size=${size}&v=${picture.version}&look=${look}`;

/**
 * Follow the server's events. One tab holds the connection and passes events on to the others, since a browser
 * opens six connections to a server at most. `heard(kind, data)`; `opened()` whenever something may have been missed.
 */
export function follow(heard, opened, lost) {
  const canShare = "BroadcastChannel" in window && navigator.locks;
  const channel = canShare ? new BroadcastChannel("iir-sdk-events") : null;
  const pass = (kind, data) => {
    heard(kind, data);
    channel?.postMessage({ kind, data });
  };
  const connect = () => {
    const source = new EventSource(`${API}/events`);
    for (const kind of ["picture", "progress", "project"])
      source.addEventListener(kind, (event) => pass(kind, JSON.parse(event.data)));
    source.onopen = () => { opened(); channel?.postMessage({ kind: "opened" }); };
    source.onerror = () => {
      lost();
      channel?.postMessage({ kind: "lost" });
      // A connection that was refused is not tried again by the browser itself.
      if (source.readyState === EventSource.CLOSED) setTimeout(connect, 2000);
    };
  };
  if (!channel) { connect(); return; }
  channel.onmessage = ({ data }) => {
    if (data.kind === "opened") opened();
    else if (data.kind === "lost") lost();
    else heard(data.kind, data.data);
  };
  navigator.locks.request("iir-sdk-events", () => { connect(); return new Promise(() => {}); });
}
