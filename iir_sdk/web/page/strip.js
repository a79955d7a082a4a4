// The strip below the large picture: the ones just seen, this one, and the next, least sure first.

import { $, make } from "./elements.js";
import { stateName, thumbnail, updateMask } from "./grid.js";
import { pictures } from "./project.js";

const SEEN = 3;
const AHEAD = 24;

const tiles = new Map();

/** Show the part of a list around one of it. Tiles that stay are kept, so that nothing loads twice. */
export function fillStrip(list, index) {
  const strip = $("strip");
  const part = list.slice(Math.max(0, index - SEEN), index + AHEAD).filter((id) => pictures.has(id));
  const wanted = new Set(part);
  for (const [id, tile] of tiles) if (!wanted.has(id)) { tile.remove(); tiles.delete(id); }
  part.forEach((id, i) => {
    let tile = tiles.get(id);
    if (!tile) {
      tile = newTile(id);
      tiles.set(id, tile);
    }
    if (strip.children[i] !== tile) strip.insertBefore(tile, strip.children[i] ?? null);
    fill(tile, pictures.get(id), id === list[index]);
  });
  if (strip.dataset.current !== list[index]) {
    strip.dataset.current = list[index];
    strip.scrollLeft = 0;
  }
}

function newTile(id) {
  const button = make("button", { data: { id }, tabIndex: -1 }, thumbnail(pictures.get(id)));
  return make("div", { role: "listitem" }, button);
}

function fill(tile, picture, isCurrent) {
  const button = tile.firstElementChild;
  button.dataset.status = picture.status;
  if (isCurrent) button.setAttribute("aria-current", "true");
  else button.removeAttribute("aria-current");
  const sure = picture.certainty == null ? "" : `, ${Math.round(picture.certainty * 100)}% sure`;
  button.setAttribute("aria-label", `${picture.name}, ${stateName(picture)}${sure}`);
  button.title = `${picture.name}${sure}`;
  updateMask(button.firstElementChild, picture);
}
