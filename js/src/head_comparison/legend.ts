// A colour scale with its ticks and a few words.
// In: colours from low to high, ticks, words. Out: an element, as under every picture of the house.
import { css, type Rgb } from "../shared/colour";
import { h } from "../shared/dom";

export type Ticks = readonly (readonly [number, string])[];

export function legendOf(
  ramp: readonly Rgb[],
  ticks: Ticks,
  ...words: readonly (string | false)[]
): HTMLElement {
  const bar = h("div", { class: "lt-ramp" });
  const stops = ramp.filter((_, i) => i % 17 === 0 || i === 255).map(css);
  bar.style.background = `linear-gradient(90deg, ${stops.join(",")})`;
  const marks = ticks.map(([at, label]) => {
    const tick = h("span", { class: at === 0 ? "lt-start" : at === 1 ? "lt-end" : "" }, label);
    tick.style.left = `${at * 100}%`;
    return tick;
  });
  return h(
    "div",
    { class: "lt-legend" },
    h("div", { class: "lt-scale" }, bar, h("div", { class: "lt-ticks" }, ...marks)),
    h("div", { class: "lt-quiet" }, ...words.map((line) => line && h("div", {}, line))),
  );
}
