// One stage of a head: its picture with rings, its name and value above, the operation and the colours under it.
// In: what it shows. Out: a <figure>; knows nothing of other stages.
import { css, type Rgb } from "../shared/colour";
import { h } from "../shared/dom";
import type { Cell } from "./cross";
import type { StageGeometry } from "./paint_stage";
import type { Replay } from "./replay";

/** A ring is at least this large. */
const RING = 9;

export class StageFigure {
  readonly canvas = h("canvas", { role: "img" });
  readonly value = h("b", { class: "lt-stage-value" });
  readonly words = h("span", {});
  /** What of the operation depends on the row. */
  readonly more = h("div", {});
  private readonly row = h("i", { class: "lt-stage-row" });
  private readonly column = h("i", { class: "lt-stage-column" });
  private readonly chosen = h("i", { class: "lt-stage-cell" });
  private readonly pointed = h("i", { class: "lt-stage-hover", hidden: true });
  readonly frame = h(
    "div",
    { class: "lt-stage-picture" },
    this.canvas,
    this.row,
    this.column,
    this.chosen,
    this.pointed,
  );
  private readonly ramp = h("div", { class: "lt-ramp" });
  private readonly ticks = h("div", { class: "lt-ticks" });
  readonly element: HTMLElement;
  geometry: StageGeometry | null = null;
  painted = "";
  marks: readonly string[] = [];

  constructor(readonly stage: string) {
    const head = h("div", { class: "lt-stage-head" }, h("b", {}, stage), this.value);
    this.element = h(
      "figure",
      { class: "lt-stage" },
      head,
      this.frame,
      h("div", { class: "lt-stage-op" }, this.words, this.more),
      this.ramp,
      this.ticks,
    );
  }

  legend(colours: readonly Rgb[], ticks: readonly string[]): void {
    this.marks = ticks;
    const stops = colours.filter((_, i) => i % 17 === 0).map(css);
    this.ramp.style.background = `linear-gradient(90deg, ${stops.join(",")})`;
    this.ticks.replaceChildren(...ticks.map((t) => h("span", {}, t)));
  }

  /** Puts the rings around cells; null hides them. */
  rings(replay: Replay, ratio: number, chosen: Cell | null, pointed: Cell | null): void {
    const g = this.geometry;
    if (!g) return;
    const size = { x: g.width / ratio / replay.keys, y: g.height / ratio / replay.rows };
    const box = (e: HTMLElement, cell: Cell) => {
      const b = cellBox(g, replay, ratio, cell);
      place(e, b.x, b.y, b.width, b.height);
    };
    for (const e of [this.row, this.column, this.chosen]) e.hidden = chosen === null;
    this.pointed.hidden = pointed === null;
    if (pointed) box(this.pointed, pointed);
    if (!chosen) return;
    box(this.chosen, chosen);
    place(this.row, 0, (chosen[0] + 0.5) * size.y - 0.5, g.width / ratio, 1);
    place(this.column, (chosen[1] + 0.5) * size.x - 0.5, 0, 1, g.height / ratio);
  }
}

/** The ring around a cell, in CSS pixels of the picture: never so small that it cannot be seen. */
export function cellBox(
  g: StageGeometry,
  { rows, keys }: Replay,
  ratio: number,
  [query, key]: Cell,
): { x: number; y: number; width: number; height: number } {
  const size = { x: g.width / ratio / keys, y: g.height / ratio / rows };
  const width = Math.max(RING, size.x + 4);
  const height = Math.max(RING, size.y + 4);
  return { x: (key + 0.5) * size.x - width / 2, y: (query + 0.5) * size.y - height / 2, width, height };
}

function place(e: HTMLElement, x: number, y: number, width: number, height: number): void {
  e.style.transform = `translate(${Math.round(x)}px, ${Math.round(y)}px)`;
  e.style.width = `${Math.round(width)}px`;
  e.style.height = `${Math.round(height)}px`;
}
