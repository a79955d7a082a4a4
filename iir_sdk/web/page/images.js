// Pictures and masks fetched ahead, so that the next one is there when it is wanted.

import { hasMask, look, pictures } from "./project.js";
import { maskUrl, pictureUrl } from "./server.js";

const KEPT = 12;

const images = new Map();

async function decoded(address) {
  const image = new Image();
  image.decoding = "async";
  image.src = address;
  await image.decode();
  return image;
}

/** The decoded picture at an address; kept for a while. */
function imageAt(address) {
  let image = images.get(address);
  images.delete(address);
  image ??= decoded(address);
  images.set(address, image);
  image.catch(() => images.delete(address));
  while (images.size > KEPT) images.delete(images.keys().next().value);
  return image;
}

export const fullImage = (id) => imageAt(pictureUrl(id, "image"));
export const smallImage = (id) => imageAt(pictureUrl(id, "thumbnail"));
export const fullMask = (picture) => imageAt(maskUrl(picture, "full", look()));

export function fetchAhead(ids) {
  for (const id of ids) {
    const picture = pictures.get(id);
    if (!picture || picture.status === "broken") continue;
    fullImage(id).catch(() => {});
    if (hasMask(picture)) fullMask(picture).catch(() => {});
  }
}
