// One number per token as bars, with the highest tokens named: where tokens look, or who looks at them.
// In: values (NaN = not seen), names. Out: a canvas, a list of tokens, the token that is pointed at or chosen.
import { css } from "../shared/colour";
import { type Cleanup, h } from "../shared/dom";
import { smallWeight } from "../shared/format";
import type { Theme } from "../shared/theme";
import { roundUp } from "./paint_stage";
import { constant } from "./stage_words";

/** Height of the bars, and of the marks under them, in CSS pixels. */
const HIGH = 34;
const MARKS = 5;
/** A bar is at most this wide. */
const WIDEST = 30;
/** A token named under the bars has at least this share of the highest. */
const SHARE = 0.02;

export interface ProfileLook {
  readonly theme: Theme;
  readonly ratio: number;
  readonly sinkAside: boolean;
}

export interface ProfileData {
  readonly values: Float32Array;
  /** Tokens that the sum goes over. */
  readonly chosen: readonly number[];
  name(token: number): HTMLElement;
}

/** The highest tokens, at most `most`, those with next to nothing left out. */
export function highest(values: Float32Array, most = 5): number[] {
  const order = [...values.keys()]
    .filter((i) => values[i]! > 0)
    .sort((a, b) => values[b]! - values[a]! || a - b);
  const least = (values[order[0] ?? 0] ?? 0) * SHARE;
  return order.slice(0, most).filter((i) => values[i]! >= least);
}

/** The top of the bars' scale; the first token is left out where it stands aside. */
export function top(values: Float32Array, sinkAside: boolean): number {
  let most = 0;
  for (let i = sinkAside && values.length > 1 ? 1 : 0; i < values.length; i++)
    if (values[i]! > most) most = values[i]!;
  return roundUp(most > 0 ? most : (values[0] ?? 0));
}

export class Profile {
  readonly canvas = h("canvas", { role: "img" });
  readonly plot = h("div", { class: "lt-profile" }, this.canvas);
  readonly end = h("span", { class: "lt-number lt-quiet" });
  readonly list = h("div", { class: "lt-profile-list" });
  private data: ProfileData | null = null;
  private look: ProfileLook | null = null;
  private pointed: number | null = null;

  constructor(
    cleanup: Cleanup,
    private readonly choose: (token: number) => void,
  ) {
    cleanup.on<PointerEvent>(this.canvas, "pointermove", (e) => this.point(this.under(e)));
    cleanup.on(this.canvas, "pointerleave", () => this.point(null));
    cleanup.on<MouseEvent>(this.canvas, "click", (e) => {
      const token = this.under(e);
      if (token !== null) choose(token);
    });
  }

  /** Says why there are no values. */
  say(words: string): void {
    this.data = null;
    this.canvas.hidden = true;
    this.end.textContent = "";
    this.list.replaceChildren(words);
  }

  show(data: ProfileData, look: ProfileLook): void {
    this.data = data;
    this.look = look;
    this.canvas.hidden = false;
    this.pointed = null;
    this.paint();
    this.names();
  }

  paint(): void {
    const { data, look } = this;
    const width = this.plot.clientWidth;
    const ctx = this.canvas.getContext("2d");
    if (!data || !look) return;
    const limit = top(data.values, look.sinkAside);
    this.end.textContent = constant(limit);
    if (ctx && width > 0) paintBars(this.canvas, ctx, width, limit, data, look);
  }

  private names(): void {
    const { data, pointed } = this;
    if (!data) return;
    const { values } = data;
    const item = (i: number) => {
      const value = values[i]!;
      const words = Number.isNaN(value) ? " not seen" : ` ${smallWeight(value)}`;
      const e = h("button", { type: "button", class: "lt-link" }, data.name(i), h("b", {}, words));
      e.addEventListener("click", () => this.choose(i));
      return e;
    };
    const shown = pointed === null ? highest(values) : [pointed];
    this.list.replaceChildren(...shown.map(item), shown.length === 0 ? "nothing" : "");
    const words = highest(values, 3).map((i) => `${data.name(i).textContent} ${smallWeight(values[i]!)}`);
    this.canvas.setAttribute("aria-label", `Highest: ${words.join(", ") || "nothing"}`);
  }

  private point(token: number | null): void {
    if (token === this.pointed) return;
    this.pointed = token;
    this.names();
  }

  /** The token under the pointer; where a pixel stands for several, the highest of them. */
  private under(e: MouseEvent): number | null {
    const { data } = this;
    if (!data) return null;
    const box = this.canvas.getBoundingClientRect();
    const n = data.values.length;
    const at = (x: number) => Math.max(0, Math.min(n - 1, Math.floor((x / box.width) * n)));
    let best = at(e.clientX - box.left);
    for (let i = best; i < at(e.clientX - box.left + 1); i++)
      if (data.values[i]! > data.values[best]! || Number.isNaN(data.values[best]!)) best = i;
    return best;
  }
}

function paintBars(
  canvas: HTMLCanvasElement,
  ctx: CanvasRenderingContext2D,
  width: number,
  limit: number,
  { values, chosen }: ProfileData,
  { theme, ratio }: ProfileLook,
): void {
  const [w, high] = [Math.round(width * ratio), Math.round(HIGH * ratio)];
  canvas.width = w;
  canvas.height = high + Math.round(MARKS * ratio);
  canvas.style.width = `${width}px`;
  canvas.style.height = `${HIGH + MARKS}px`;
  const n = values.length;
  const start = (i: number) => Math.round((i * w) / n);
  const line = w / n >= 4 * ratio ? Math.max(1, Math.round(ratio)) : 0;
  ctx.fillStyle = css(theme.line);
  ctx.fillRect(0, high - 1, w, 1);
  values.forEach((v, i) => {
    if (!(v > 0)) return;
    const tall = Math.max(1, Math.round(Math.min(1, v / limit) * (high - 1)));
    const own = start(i + 1) - start(i);
    const wide = Math.max(1, Math.min(own - line, WIDEST * ratio));
    const x = start(i) + Math.max(0, Math.floor((own - line - wide) / 2));
    ctx.fillStyle = css(theme.ink2);
    ctx.fillRect(x, high - 1 - tall, wide, tall);
    // A bar that is higher than the scale is torn.
    ctx.fillStyle = css(theme.paper);
    if (v > limit) ctx.fillRect(x, Math.round(4 * ratio), wide, Math.round(2 * ratio));
  });
  ctx.fillStyle = css(theme.accent);
  for (const i of chosen) {
    const middle = Math.max(4 * ratio, Math.min(w - 4 * ratio, (start(i) + start(i + 1)) / 2));
    ctx.beginPath();
    ctx.moveTo(middle, high);
    ctx.lineTo(middle - 4 * ratio, canvas.height);
    ctx.lineTo(middle + 4 * ratio, canvas.height);
    ctx.fill();
  }
}
