// Where the large view is: the whole head small, with what is shown as an orange frame that can be dragged.
// In: the overview, the viewport. Out: another viewport; nearer, farther, all.
import { type Cleanup, h } from "../shared/dom";
import type { Theme } from "../shared/theme";
import { matrixGeometry, paintMatrix } from "./paint_matrix";
import type { Scale } from "./scale";
import type { Picture } from "./tiles";
import { moved, type Span, size, type Viewport } from "./viewport";

export interface MinimapLook {
  readonly scale: Scale;
  readonly sinkAside: boolean;
  readonly theme: Theme;
  readonly ratio: number;
  readonly most: number;
}

export interface MinimapEvents {
  move(view: Viewport): void;
  zoom(factor: number): void;
  whole(): void;
}

const SIDE = 84;

export class Minimap {
  /** The map, and a line that says the ranges in words and has the buttons. */
  readonly map: HTMLElement;
  readonly bar: HTMLElement;
  private readonly canvas = h("canvas", { "aria-hidden": "true" });
  private readonly box = h("div", { class: "lt-zoom-box" });
  private readonly words = h("span", { class: "lt-zoom-words" });
  private view: Viewport | null = null;
  private whole: Viewport | null = null;
  private painted = "";
  private picture: Picture | null = null;
  /** Rows and keys from the pointer to the middle of the frame while it is dragged. */
  private grip: readonly [number, number] | null = null;

  constructor(
    cleanup: Cleanup,
    private readonly events: MinimapEvents,
  ) {
    this.map = h("div", { class: "lt-zoom-map", hidden: true }, this.canvas, this.box);
    const button = (text: string, label: string, run: () => void) => {
      const b = h("button", { type: "button", class: "lt-button", title: label, "aria-label": label }, text);
      cleanup.on(b, "click", run);
      return b;
    };
    this.bar = h(
      "div",
      { class: "lt-zoom-bar", hidden: true },
      this.words,
      button("\u2212", "Farther (\u2212)", () => events.zoom(0.5)),
      button("+", "Nearer (+)", () => events.zoom(2)),
      button("Whole head", "All rows and keys (0)", () => events.whole()),
    );
    cleanup.on<PointerEvent>(this.map, "pointerdown", (e) => this.grab(e));
    cleanup.on<PointerEvent>(this.map, "pointermove", (e) => this.drag(e));
    for (const end of ["pointerup", "pointercancel"])
      cleanup.on(this.map, end, () => {
        this.grip = null;
      });
  }

  hide(): void {
    this.map.hidden = this.bar.hidden = true;
    this.view = null;
  }

  show(picture: Picture, whole: Viewport, view: Viewport, causal: boolean, look: MinimapLook): void {
    this.map.hidden = this.bar.hidden = false;
    this.view = view;
    this.whole = whole;
    const [rows, keys] = [size(whole.rows), size(whole.keys)];
    const most = Math.max(rows, keys);
    const [width, height] = [(SIDE * keys) / most, (SIDE * rows) / most];
    const key = [look.scale, look.sinkAside, look.ratio, look.most, look.theme.dark, rows, keys].join();
    if (this.picture?.matrix !== picture.matrix || this.painted !== key) {
      this.picture = picture;
      this.painted = key;
      const flat = matrixGeometry(rows, keys, { width: SIDE + 2, left: 0, top: 0 }, false, look.ratio);
      paintMatrix(this.canvas, {
        matrix: picture.matrix,
        covers: picture.covers,
        geometry: { ...flat, width, height, cellX: width / keys, cellY: height / rows },
        labels: null,
        scale: look.scale,
        sinkAside: look.sinkAside,
        most: look.most,
        causal,
        plain: true,
        query: null,
        key: null,
        theme: look.theme,
        ratio: look.ratio,
      });
    }
    const [x0, x1] = view.keys.map((k) => (k / keys) * width) as [number, number];
    const [y0, y1] = view.rows.map((r) => (r / rows) * height) as [number, number];
    const put = (from: number, to: number) => {
      const length = Math.max(8, to - from);
      return [Math.round((from + to - length) / 2), Math.round(length)] as const;
    };
    const [[left, w], [top, hh]] = [put(x0, x1), put(y0, y1)];
    Object.assign(this.box.style, {
      transform: `translate(${left}px, ${top}px)`,
      width: `${w}px`,
      height: `${hh}px`,
    });
    const range = ([from, to]: Span) => `${from}\u2013${to - 1}`;
    this.words.replaceChildren(
      h("span", { class: "lt-quiet" }, "rows "),
      range(view.rows),
      h("span", { class: "lt-quiet" }, " \u00b7 keys "),
      range(view.keys),
    );
  }

  /** The row and the key under the pointer. */
  private at(e: PointerEvent): [number, number] | null {
    const box = this.canvas.getBoundingClientRect();
    if (!this.whole || box.width === 0) return null;
    return [
      ((e.clientY - box.top) / box.height) * size(this.whole.rows),
      ((e.clientX - box.left) / box.width) * size(this.whole.keys),
    ];
  }

  /** Inside the frame it is taken where it is; elsewhere it comes to the pointer. */
  private grab(e: PointerEvent): void {
    const at = this.at(e);
    if (!at || !this.view || e.button !== 0) return;
    e.preventDefault();
    this.map.setPointerCapture?.(e.pointerId);
    const middle = (span: Span) => (span[0] + span[1]) / 2;
    const off = [middle(this.view.rows) - at[0], middle(this.view.keys) - at[1]] as const;
    const inside =
      Math.abs(off[0]) <= size(this.view.rows) / 2 && Math.abs(off[1]) <= size(this.view.keys) / 2;
    this.grip = inside ? off : [0, 0];
    if (!inside) this.drag(e);
  }

  private drag(e: PointerEvent): void {
    const at = this.at(e);
    const { view, whole, grip } = this;
    if (!at || !view || !whole || !grip) return;
    const to = (span: Span, middle: number) => Math.round(middle - (span[0] + span[1]) / 2);
    const next = moved(view, whole, to(view.rows, at[0] + grip[0]), to(view.keys, at[1] + grip[1]));
    this.events.move(next);
  }
}
