// The query's and the key's vector of the chosen cell, and their product element by element, which sums to the score.
// In: a head that can be replayed, a cell. Out: three strips that diverge around 0, and one element read out.
import { css } from "../shared/colour";
import { type Cleanup, h } from "../shared/dom";
import type { Theme } from "../shared/theme";
import type { Cell } from "./cross";
import type { GridData, Head } from "./data";
import { queryName, tokenName } from "./names";
import { diverge, roundUp } from "./paint_stage";
import type { Replay } from "./replay";
import { constant, signed } from "./stage_words";

/** Height of a strip in CSS pixels. */
const HIGH = 15;

interface Look {
  readonly head: Head;
  readonly theme: Theme;
  readonly ratio: number;
}

/** The largest elements of a product by magnitude, as indices. */
export function loudest(product: Float32Array, most = 3): number[] {
  return [...product.keys()]
    .sort((a, b) => Math.abs(product[b]!) - Math.abs(product[a]!) || a - b)
    .slice(0, most);
}

/** How many of the largest contributions it takes to make half of all that is added and taken away. */
export function half(product: Float32Array): number {
  const sizes = Float64Array.from(product, Math.abs).sort().reverse();
  const total = sizes.reduce((sum, v) => sum + v, 0);
  let sum = 0;
  let n = 0;
  while (n < sizes.length && sum < total / 2) sum += sizes[n++]!;
  return n;
}

export class VectorsView {
  readonly element = h("section", { class: "lt-vectors", hidden: true });
  private readonly note = h("span", {});
  private readonly rows = h("div", {
    class: "lt-vectors-rows",
    role: "group",
    tabindex: 0,
    "data-region": "vectors",
  });
  private readonly readOut = h("div", { class: "lt-vectors-element", role: "status" });
  private readonly canvases = [0, 1, 2].map(() => h("canvas", { "aria-hidden": "true" }));
  private readonly marks = [0, 1, 2].map(() => h("i", { hidden: true }));
  private readonly names = [0, 1, 2].map(() => h("span", { class: "lt-vector-name" }));
  private readonly sums = [0, 1, 2].map(() => h("span", { class: "lt-number lt-quiet" }));
  private vectors: readonly Float32Array[] = [];
  private shown = "";
  private look: Look | null = null;
  private width = 0;
  private at: number | null = null;

  constructor(cleanup: Cleanup) {
    this.rows.append(
      ...this.canvases.flatMap((canvas, i) => [
        this.names[i]!,
        h("div", { class: "lt-vector" }, canvas, this.marks[i]!),
        this.sums[i]!,
      ]),
    );
    this.element.append(
      h("h4", { class: "lt-one-line" }, h("b", {}, "Query times key"), this.note),
      this.rows,
      this.readOut,
    );
    cleanup.on<PointerEvent>(this.rows, "pointermove", (e) => this.point(this.under(e)));
    cleanup.on(this.rows, "pointerleave", () => this.point(null));
    cleanup.on(this.rows, "blur", () => this.point(null));
    const observer = new ResizeObserver(() => {
      if (!this.element.hidden && this.room !== this.width) this.paint();
    });
    observer.observe(this.rows);
    cleanup.add(() => observer.disconnect());
  }

  hide(): void {
    this.element.hidden = true;
    this.shown = "";
  }

  show(data: GridData, replay: Replay, [query, key]: Cell, look: Look): void {
    this.element.hidden = false;
    const { head, theme, ratio } = look;
    const state = [
      head.index,
      query,
      key,
      ratio,
      css(theme.paper),
      css(theme.ink),
      data.facts.n_tokens,
    ].join();
    if (state === this.shown) return;
    this.shown = state;
    this.look = look;
    const q = replay.query(query);
    const k = replay.key(key);
    const product = q.map((v, i) => v * k[i]!);
    this.vectors = [q, k, product];
    const facts = data.layer(head.layer);
    const share = facts ? Math.floor(facts.heads / Math.max(1, facts.kv_heads)) : 1;
    const shared = share > 1 ? `, shared by H${head.kv * share}\u2013H${head.kv * share + share - 1}` : "";
    this.note.textContent = `element by element \u00b7 KV head ${head.kv}${shared}`;
    this.names[0]!.replaceChildren("q ", queryName(data, query));
    this.names[1]!.replaceChildren("k ", tokenName(data, key));
    this.names[2]!.replaceChildren("q \u00d7 k");
    const total = `\u03a3 = ${signed(replay.value("scores", query, key))}`;
    this.sums[2]!.replaceChildren(h("b", {}, total));
    this.rows.setAttribute(
      "aria-label",
      `Elements of query and key and their product, ${total}. Arrows read them out`,
    );
    this.at = null;
    this.paint();
  }

  /** Arrows read the elements out one by one. */
  key(event: KeyboardEvent): boolean {
    const last = (this.vectors[0]?.length ?? 1) - 1;
    const at = this.at ?? -1;
    const goals: Record<string, number> = {
      ArrowLeft: at - 1,
      ArrowRight: at + 1,
      PageUp: at - 8,
      PageDown: at + 8,
      Home: 0,
      End: last,
    };
    const goal = goals[event.key];
    if (goal === undefined || event.altKey || event.ctrlKey || event.metaKey) return false;
    this.point(Math.max(0, Math.min(last, goal)));
    return true;
  }

  private get room(): number {
    return this.canvases[0]!.parentElement!.clientWidth;
  }

  private paint(): void {
    const { look, vectors } = this;
    if (!look) return;
    this.width = this.room;
    vectors.forEach((vector, i) => {
      const limit = roundUp(vector.reduce((most, v) => Math.max(most, Math.abs(v)), 0));
      if (i < 2) this.sums[i]!.textContent = `\u00b1${constant(limit)}`;
      paintStrip(this.canvases[i]!, vector, limit, this.width, look);
    });
    this.point(this.at);
  }

  private under(e: MouseEvent): number | null {
    const canvas = this.canvases.find((c) => c === e.target);
    const n = this.vectors[0]?.length ?? 0;
    if (!canvas || n === 0) return null;
    const box = canvas.getBoundingClientRect();
    return Math.max(0, Math.min(n - 1, Math.floor(((e.clientX - box.left) / box.width) * n)));
  }

  /** Marks one element in all strips and says its numbers; without one, which elements say most. */
  private point(at: number | null): void {
    this.at = at;
    const [q, k, product] = this.vectors;
    if (!q || !k || !product) return;
    const { width } = this;
    for (const mark of this.marks) {
      mark.hidden = at === null;
      if (at === null) continue;
      mark.style.transform = `translate(${Math.round((at * width) / q.length) - 1}px, 0)`;
      mark.style.width = `${Math.max(3, Math.round(width / q.length) + 2)}px`;
    }
    if (at !== null) {
      this.readOut.replaceChildren(
        `element ${at}: ${signed(q[at]!)} \u00d7 ${signed(k[at]!)} = `,
        h("b", {}, signed(product[at]!)),
      );
      return;
    }
    const most = loudest(product).flatMap((i, n) => [
      n > 0 ? ", " : "",
      `[${i}] `,
      h("b", {}, signed(product[i]!)),
    ]);
    this.readOut.replaceChildren(
      "largest: ",
      ...most,
      ` \u00b7 half of \u03a3|q \u00d7 k|: ${half(product)} of ${product.length}`,
    );
  }
}

/** One vector as a row of cells over the whole width. */
function paintStrip(
  canvas: HTMLCanvasElement,
  vector: Float32Array,
  limit: number,
  width: number,
  look: Look,
): void {
  const ctx = canvas.getContext("2d");
  if (!ctx || width === 0) return;
  const { ratio, theme } = look;
  canvas.width = Math.round(width * ratio);
  canvas.height = Math.round(HIGH * ratio);
  canvas.style.width = `${width}px`;
  canvas.style.height = `${HIGH}px`;
  const start = (i: number) => Math.round((i * canvas.width) / vector.length);
  vector.forEach((v, i) => {
    ctx.fillStyle = css(Number.isNaN(v) ? theme.plate : theme.diverging[diverge(v, limit)]!);
    ctx.fillRect(start(i), 0, Math.max(1, start(i + 1) - start(i)), canvas.height);
  });
}
