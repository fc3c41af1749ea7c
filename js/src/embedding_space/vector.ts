// A vector as a block of cells, diverging about zero; with a second model, what it changed stands below.
// In: one or two vectors. Out: a section with canvas, scale and norm.
import { pixel } from "../shared/colour";
import { type Cleanup, h } from "../shared/dom";
import { bound, count } from "../shared/format";
import type { Theme } from "../shared/theme";
import type { About } from "./data";

/** The difference between two copies is small: it is drawn this much stronger. */
const STRONGER = 4;

/** Columns of the block: as in a picture that is about twice as wide as high, full rows where that is possible. */
export function columnsOf(width: number): number {
  const ideal = Math.sqrt(width * 2.25);
  for (let c = Math.round(ideal); c <= ideal * 1.4; c++) if (width % c === 0) return c;
  for (let c = Math.round(ideal); c >= ideal / 1.5; c--) if (c > 0 && width % c === 0) return c;
  return Math.max(1, Math.round(ideal));
}

export class VectorView {
  readonly element: HTMLElement;
  private readonly title = h("h4", {});
  private readonly plates = h("div", { class: "lt-emb-blocks" });
  private readonly ramp = h("div", { class: "lt-ramp" });
  private readonly ticks = h("div", { class: "lt-ticks" });
  private readonly norm = h("span", { class: "lt-quiet" });
  private readonly tip = h("div", { class: "lt-quiet lt-emb-cell" });

  constructor(cleanup: Cleanup) {
    const legend = h(
      "div",
      { class: "lt-legend" },
      h("div", { class: "lt-scale" }, this.ramp, this.ticks),
      h("div", {}, this.norm, this.tip),
    );
    this.element = h("div", { class: "lt-emb-vector" }, this.title, this.plates, legend);
    cleanup.on(this.plates, "pointerleave", () => {
      this.tip.textContent = "";
    });
  }

  show(about: About | null, against: string | null, theme: Theme, room: number): void {
    this.element.hidden = about === null || about.vector.length === 0;
    if (!about || this.element.hidden) return;
    const { vector, other } = about;
    const difference = other && other.length === vector.length ? other.map((v, i) => v - vector[i]!) : null;
    const most = vector.reduce((m, v) => (Number.isFinite(v) ? Math.max(m, Math.abs(v)) : m), 0) || 1;
    this.title.replaceChildren(
      h("b", {}, "The vector"),
      h("span", {}, `${count(vector.length)} numbers, `),
      h("bdi", { class: "lt-mono" }, about.text),
      ...(difference ? [h("span", {}, ` above, ${against} minus it below`)] : []),
    );
    const blocks = [this.block(vector, most, theme, room, "value")];
    if (difference) blocks.push(this.block(difference, most / STRONGER, theme, room, "difference"));
    this.plates.replaceChildren(...blocks);
    const stops = theme.diverging.filter((_, i) => i % 15 === 0);
    this.ramp.style.background = `linear-gradient(to right, ${stops.map((c) => `rgb(${c.map(Math.round).join(",")})`).join(", ")})`;
    const tick = (text: string, at: number) => h("span", { style: `left:${at}%` }, text);
    this.ticks.replaceChildren(tick(bound(-most), 0), tick("0", 50), tick(`+${bound(most)}`, 100));
    const length = Math.sqrt(vector.reduce((sum, v) => sum + v * v, 0));
    this.norm.textContent = `‖v‖ = ${Number.isFinite(length) ? length.toPrecision(3) : "–"}${
      difference ? ` · difference \u00d7${STRONGER}` : ""
    }`;
  }

  private block(
    values: Float32Array,
    most: number,
    theme: Theme,
    room: number,
    word: string,
  ): HTMLCanvasElement {
    const columns = columnsOf(values.length);
    const rows = Math.ceil(values.length / columns);
    const canvas = h("canvas", {
      class: "lt-emb-block",
      role: "img",
      "aria-label": `${count(values.length)} numbers, from ${bound(-most)} to ${bound(most)}`,
    });
    canvas.width = columns;
    canvas.height = rows;
    canvas.style.width = `${room}px`;
    canvas.style.height = `${Math.round((room / columns) * rows * 0.8)}px`;
    const ctx = canvas.getContext("2d");
    if (ctx) {
      const image = ctx.createImageData(columns, rows);
      const words = new Uint32Array(image.data.buffer);
      values.forEach((v, i) => {
        if (!Number.isFinite(v)) return;
        const share = Math.max(0, Math.min(1, (v / most + 1) / 2));
        words[i] = pixel(theme.diverging[Math.round(255 * share)]!);
      });
      ctx.putImageData(image, 0, 0);
    }
    canvas.addEventListener("pointermove", (e) => {
      const box = canvas.getBoundingClientRect();
      const at = (v: number, size: number, n: number) => Math.min(n - 1, Math.floor((v / size) * n));
      const i =
        at(e.clientY - box.top, box.height, rows) * columns + at(e.clientX - box.left, box.width, columns);
      const value = values[i];
      this.tip.textContent =
        value === undefined ? "" : `${word} ${i}: ${value.toPrecision(4).replace("-", "\u2212")}`;
    });
    return canvas;
  }
}
