// The strips with their tooltip and DOM twin: one axis of layers, several measures.
// In: data, choices, a width. Out: a canvas; which layer or head the user chose.
import { Twin } from "../attention_grid/twin";
import { type Cleanup, Floating, h, Timer } from "../shared/dom";
import type { LensData } from "./data";
import { layoutStrips, type StripHit, type StripsLayout, stripHit } from "./layout";
import { paintStrips, type StripsLook } from "./paint_strips";
import { figures, milliseconds, pushName, signed } from "./words";

export interface StripsChoices extends StripsLook {
  readonly width: number;
}

interface Hears {
  layer(layer: number, head: number | null): void;
}

export class StripsView {
  readonly canvas = h("canvas", { role: "img" });
  private readonly column = h("div", { class: "lt-ll-column", hidden: true });
  private readonly tip = new Floating("lt-tip lt-ll-tip");
  private readonly twin: Twin;
  readonly element: HTMLElement;
  private readonly delay: Timer;
  private data: LensData | null = null;
  private layout: StripsLayout | null = null;
  private choices: StripsChoices | null = null;
  private cursor: [number, number] = [0, 0];
  private focused = false;

  constructor(
    private readonly hears: Hears,
    unique: string,
    cleanup: Cleanup,
  ) {
    this.twin = new Twin("Through the layers", "strips", (r, c) => this.say(r, c), `s-${unique}`);
    this.element = h(
      "div",
      { class: "lt-ll-strips" },
      this.canvas,
      this.column,
      this.twin.element,
      this.tip.element,
    );
    this.delay = new Timer(cleanup);
    cleanup.on<PointerEvent>(this.canvas, "pointermove", (e) => this.over(e));
    cleanup.on(this.canvas, "pointerleave", () => this.hideTip());
    cleanup.on<MouseEvent>(this.canvas, "click", (e) => this.click(e));
    cleanup.on(this.twin.element, "focus", () => this.focus(true));
    cleanup.on(this.twin.element, "blur", () => this.focus(false));
  }

  show(data: LensData, choices: StripsChoices): void {
    this.data = data;
    this.choices = choices;
    this.layout = layoutStrips(data, choices.width, choices.narrow);
    this.element.style.height = `${this.layout.height}px`;
    paintStrips(this.canvas, data, this.layout, choices);
    const locked = data.facts.layers.findIndex((l) => l.layer === choices.layer);
    const finding = locked < 0 ? "" : `${this.say(0, locked)}. `;
    this.canvas.setAttribute("aria-label", `${finding}What ${data.facts.layers.length} layers do`);
    this.twin.label = "Through the layers: columns are layers, rows are heads. Enter selects";
    if (this.focused) this.showTwin();
  }

  hideTip(): boolean {
    this.delay.stop();
    const shown = this.tip.shown;
    this.tip.hide();
    this.column.hidden = true;
    return shown;
  }

  private at(e: MouseEvent): StripHit | null {
    if (!this.layout || !this.data) return null;
    const box = this.canvas.getBoundingClientRect();
    return stripHit(this.layout, this.data.facts.layers.length, e.clientX - box.left, e.clientY - box.top);
  }

  private over(e: PointerEvent): void {
    if (e.pointerType === "touch" || e.buttons !== 0) return;
    const hit = this.at(e);
    this.canvas.style.cursor = hit ? "pointer" : "";
    if (hit) this.preview(hit.place, hit.head, e.clientY - this.canvas.getBoundingClientRect().top);
    else this.hideTip();
  }

  private preview(place: number, head: number | null, y = 0): void {
    const { layout } = this;
    if (!layout) return;
    const x = layout.left + place * layout.step;
    this.column.hidden = false;
    this.column.style.transform = `translate(${x}px, 0)`;
    this.column.style.width = `${layout.step}px`;
    const show = () => {
      const box = this.canvas.getBoundingClientRect();
      const target = new DOMRect(box.left + x, box.top + y, layout.step, 20);
      this.tip.element.replaceChildren(...this.explain(place, head));
      this.tip.show(target, [], 8);
    };
    if (this.tip.shown) show();
    else this.delay.start(80, show);
  }

  private lines(place: number, head: number | null): [string, string][] {
    const { data } = this;
    if (!data) return [];
    const { push, facts } = data;
    const at = (kind: Parameters<LensData["stream"]>[0]) => data.stream(kind)[place] ?? Number.NaN;
    const lines: [string, string][] = [];
    const mixer = facts.layers[place]!.mixer ?? "attention";
    if (push && head !== null)
      lines.push([`H${head} on ${pushName(push)}`, signed(data.head(place, head), 2)]);
    if (push) {
      lines.push([`${mixer} on ${pushName(push)}`, signed(push.attention[place] ?? null, 2)]);
      lines.push([`MLP on ${pushName(push)}`, signed(push.mlp[place] ?? null, 2)]);
    }
    lines.push([`written by ${mixer}`, figures(at("attention"))], ["written by MLP", figures(at("mlp"))]);
    lines.push(["residual norm", figures(at("residual"))], ["cosine to before", figures(at("cosine"))]);
    lines.push(["outlier dimensions", figures(at("outliers"))]);
    for (const [d, times] of facts.layers[place]!.outliers)
      lines.push([`dimension ${d}`, `${figures(times)} \u00d7 median`]);
    const ms = facts.times?.ms[place];
    if (ms !== undefined && ms !== null) lines.push(["time", milliseconds(ms)]);
    return lines;
  }

  private explain(place: number, head: number | null): Node[] {
    const layer = this.data?.facts.layers[place]?.layer;
    const cells = this.lines(place, head).flatMap(([name, value]) => [
      h("span", { class: "lt-quiet" }, name),
      h("span", { class: "lt-number" }, value),
    ]);
    return [h("b", {}, `Layer ${layer}`), h("div", { class: "lt-ll-tip-list" }, ...cells)];
  }

  private say(row: number, place: number): string | null {
    const layer = this.data?.facts.layers[place]?.layer;
    if (layer === undefined) return null;
    const head = (this.data?.push?.heads ?? 0) > 0 ? row : null;
    return `Layer ${layer}: ${this.lines(place, head)
      .map((line) => line.join(" "))
      .join(", ")}`;
  }

  private click(e: MouseEvent): void {
    const hit = this.at(e);
    if (!hit || !this.data) return;
    this.hideTip();
    this.cursor = [hit.head ?? 0, hit.place];
    this.twin.element.focus({ preventScroll: true });
    this.hears.layer(this.data.facts.layers[hit.place]!.layer, hit.head);
  }

  /** Takes a key; true when it used it. */
  key(event: KeyboardEvent, target: HTMLElement): boolean {
    const { data } = this;
    if (target !== this.twin.element || !data) return false;
    const [head, place] = this.cursor;
    const heads = Math.max(1, data.push?.heads ?? 0);
    const last = data.facts.layers.length - 1;
    if (event.key === "Enter") {
      this.hears.layer(data.facts.layers[place]!.layer, data.push && data.push.heads > 0 ? head : null);
      return true;
    }
    const steps: Record<string, [number, number]> = {
      ArrowLeft: [head, place - 1],
      ArrowRight: [head, place + 1],
      ArrowUp: [head - 1, place],
      ArrowDown: [head + 1, place],
      PageUp: [head, place - 5],
      PageDown: [head, place + 5],
      Home: [head, 0],
      End: [head, last],
    };
    const to = steps[event.key];
    if (!to) return false;
    this.cursor = [Math.max(0, Math.min(heads - 1, to[0])), Math.max(0, Math.min(last, to[1]))];
    this.showTwin();
    this.preview(this.cursor[1], data.push ? this.cursor[0] : null);
    return true;
  }

  private focus(on: boolean): void {
    this.focused = on;
    if (on) this.showTwin();
    else this.hideTip();
  }

  private showTwin(): void {
    const { data, choices } = this;
    if (!data || !choices) return;
    const heads = Math.max(1, data.push?.heads ?? 0);
    this.cursor[0] = Math.min(this.cursor[0], heads - 1);
    this.twin.show(
      heads,
      data.facts.layers.length,
      ...this.cursor,
      (head, place) =>
        data.facts.layers[place]?.layer === choices.layer && (choices.head === null || head === choices.head),
    );
  }
}
