// Copy retrieval-search.js and retrieval-search.d.ts of the site here, and the site itself to public/gallery.
import { open, type Hits } from "./retrieval-search.js";

const input = document.querySelector("input")!, said = document.querySelector("#said")!, hits = document.querySelector("#hits")!;
const opening = open("gallery/");

input.addEventListener("change", async () => {
  try {
    const gallery = await opening;
    const found: Hits = await gallery.search(input.files![0], { k: 10 });
    hits.replaceChildren(...found.map((hit) => Object.assign(new Image(160), { src: hit.thumbnail, alt: hit.name })));
    said.textContent = `${found.length} of ${gallery.count} photos.`;
  } catch (error) {
    said.textContent = (error as Error).message;
  }
});
