// Small parts that every view is made of. Names from outside only ever become text.

export const $ = (id) => document.getElementById(id);

/** An element with properties, and children that are nodes or text. */
export function make(tag, properties = {}, ...children) {
  const element = document.createElement(tag);
  for (const [name, value] of Object.entries(properties)) {
    if (name.startsWith("aria-") || name === "role" || name === "for") element.setAttribute(name, value);
    else if (name === "data") Object.assign(element.dataset, value);
    else element[name] = value;
  }
  element.append(...children);
  return element;
}

export function icon(name) {
  const svg = document.createElementNS("http://www.w3.org/2000/svg", "svg");
  const use = document.createElementNS("http://www.w3.org/2000/svg", "use");
  use.setAttribute("href", `#i-${name}`);
  svg.append(use);
  svg.setAttribute("aria-hidden", "true");
  return svg;
}

/** A line at the bottom of the window, for a few seconds; errors stay longer. */
export function toast(text, isError = false) {
  const line = make("p", { className: isError ? "toast bad" : "toast", textContent: text });
  $("toasts").append(line);
  while ($("toasts").childElementCount > 4) $("toasts").firstElementChild.remove();
  setTimeout(() => line.remove(), isError ? 9000 : 3500);
}

export const failed = (error) => {
  if (error?.name === "AbortError") return;
  console.error(error);
  toast(error.message || String(error), true);
};

/** Call at most once per `ms`, and once more at the end. */
export function seldom(ms, action) {
  let timer = null;
  let again = false;
  const fire = () => {
    timer = null;
    if (again) { again = false; action(); timer = setTimeout(fire, ms); }
  };
  return () => {
    if (timer !== null) { again = true; return; }
    action();
    timer = setTimeout(fire, ms);
  };
}

/** Call when nothing has asked for `ms`. */
export function later(ms, action) {
  let timer = null;
  return (...args) => { clearTimeout(timer); timer = setTimeout(() => action(...args), ms); };
}

/** Put a popover under the button that opens it, inside the window. */
export function under(panel, button, fromLeft = false) {
  const place = button.getBoundingClientRect();
  const width = panel.offsetWidth;
  panel.style.top = `${Math.min(place.bottom + 14, innerHeight - panel.offsetHeight - 8)}px`;
  panel.style.left = `${Math.max(8, Math.min(fromLeft ? place.left : place.right - width, innerWidth - width - 8))}px`;
}

export const isTyping = (target) =>
  target instanceof HTMLElement && (target.isContentEditable || target.matches("input:not([type=range]):not([type=checkbox]):not([type=radio]), textarea, select"));
