// Memory by owner: one bar for each place, all on one scale.
// In: places with their parts. Out: DOM.
import { h } from "../shared/dom";
import { bytes, count } from "../shared/format";
import type { Place } from "./data";

/** `most` is what a whole bar stands for. */
export function memoryBars(places: readonly Place[], name: string, most: number): HTMLElement[] {
  return places.map((place) => {
    const bar = h("div", { class: "lt-tp-bar", "aria-hidden": "true" });
    const words = h("div", { class: "lt-tp-parts" });
    for (const part of place.parts) {
      const title = `${part.label}: ${count(part.bytes)} bytes`;
      const piece = h("i", { class: `lt-tp-${part.owner}`, title });
      piece.style.width = `${(100 * part.bytes) / most}%`;
      bar.append(piece);
      const mark = h("i", { class: `lt-tp-${part.owner}`, "aria-hidden": "true" });
      words.append(h("span", { title }, mark, `${part.label} ${bytes(part.bytes)}`));
    }
    if (place.note) words.append(h("span", { class: "lt-quiet" }, place.note));
    return h(
      "section",
      {},
      h(
        "h3",
        {},
        h("b", {}, `Memory: ${place.place.toLowerCase()}${name ? ` of ${name}` : ""}`),
        bytes(place.total),
      ),
      bar,
      place.parts.length > 1 || place.note ? words : null,
    );
  });
}
