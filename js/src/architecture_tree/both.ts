// Two files on one scale: A, B, and what lies between them; the tables of what changed and what it did to the weights.
// In: both models, the view's layout and overlay. Out: DOM; which leaf of A or which role was chosen.
import { h } from "../shared/dom";
import { bytes, plural } from "../shared/format";
import type { Theme } from "../shared/theme";
import type { Overlay } from "./colours";
import { deltaLegend, deltaOverlay, deltaWords, roleTable, signed } from "./compare";
import type { TreeData } from "./data";
import { typeCounts } from "./detail";
import type { Column, Layout } from "./layout";
import { type ByteMap, lockedRange, type Words } from "./map";
import { ofOther, quantity, sequentialLegend } from "./overlays";
import { figure, worstTable } from "./values";
import type { Models } from "./view";
import { blockWords } from "./words";

/** Width (px) of the words left of the maps. */
export const WORDS = 200;

export interface BothEvents {
  leaf(leaf: number): void;
  role(role: string): void;
  /** Compares the weights; resolves when the errors have come. */
  errors(): Promise<void>;
  /** Something changed here: draw again. */
  again(): void;
}

export interface Look {
  readonly models: Models & { readonly b: TreeData };
  readonly layout: Layout;
  readonly overlay: Overlay;
  readonly theme: Theme;
  readonly wide: boolean;
  readonly ratio: number;
  readonly live: boolean;
  /** The chosen node of A, -1 for none. */
  readonly chosen: number;
  columns(data: TreeData): readonly Column[];
  kept(data: TreeData): Uint8Array | null;
}

export class BothView {
  readonly element = h("div", { class: "lt-at-both", hidden: true });
  readonly maps: readonly [ByteMap, ByteMap, ByteMap];
  private byError = false;
  private state = "";

  constructor(
    map: (name: string) => ByteMap,
    private readonly events: BothEvents,
  ) {
    this.maps = [map("Byte map of A"), map("Byte map of B"), map("Difference of A and B")];
  }

  get third(): ByteMap {
    return this.maps[2];
  }

  show(look: Look): void {
    const { models, overlay, theme, layout } = look;
    const { facts, a, b, pairs, errors } = models;
    const byError = this.byError && errors.length === 3;
    const third = byError ? errorOverlay(errors[1]!) : deltaOverlay(a, b, pairs);
    const draw = (map: ByteMap, data: TreeData, own: Overlay, words: Words) =>
      map.show(data, look.columns(data), layout, own, theme, look.kept(data), look.ratio, words);
    draw(this.maps[0], a, overlay, (leaf) => blockWords(a, leaf));
    draw(this.maps[1], b, ofOther(overlay, b), (leaf) => blockWords(b, leaf));
    draw(this.maps[2], a, third, (leaf) => [
      blockWords(a, leaf)[0],
      byError ? `error ${figure(errors[1]![leaf])}` : deltaWords(a, b, pairs, leaf),
    ]);
    this.lock(look);
    const short = (side: number) => facts.sides[side]!.quant_type ?? facts.sides[side]!.model;
    const legend = byError ? sequentialLegend(third, theme) : deltaLegend(theme);
    if (look.wide) legend.style.marginLeft = `${WORDS}px`;
    const heading = (strong: string, words: string) =>
      h("h3", { class: "lt-at-roles-title" }, h("b", {}, strong), words);
    this.element.replaceChildren(
      row(this.maps[0], `A \u00b7 ${short(0)}`, ...sizeOf(a, theme)),
      row(this.maps[1], `B \u00b7 ${short(1)}`, ...sizeOf(b, theme)),
      row(this.maps[2], byError ? "Weight error" : "B \u2212 A", ...change(models), this.control(look)),
      legend,
      ...(overlay.values ? [sequentialLegend(overlay, theme)] : []),
    );
    if (errors.length === 3)
      this.element.append(
        heading("Most affected", "weights of B against those of A"),
        worstTable(a, b, pairs, errors, theme, (leaf) => this.events.leaf(leaf)),
      );
    this.element.append(
      heading("What changed, by role", "sorted by bytes"),
      roleTable(facts.roles, facts.types, theme, (role) => this.events.role(role)),
    );
    this.third.canvas.setAttribute("aria-label", byError ? third.words : `B minus A, ${third.words}`);
  }

  private lock({ models: { a, b }, chosen }: Look): void {
    const own = lockedRange(a, chosen);
    this.maps[0].lock(own);
    this.maps[2].lock(own);
    this.maps[1].lock(chosen < 0 ? null : lockedRange(b, b.find(a.id(chosen))));
  }

  /** Switches the third map between bits and errors; the first time it asks for the errors. */
  private control({ models, live }: Look): HTMLElement {
    const there = models.errors.length === 3;
    const whole = models.facts.sides.every((side) => side.complete);
    const why = whole
      ? live
        ? this.state
        : "weight errors need a kernel"
      : "weight errors need both whole files";
    if (!there && why !== "") return h("div", { class: "lt-quiet", role: "status" }, why);
    const words = there && this.byError ? "Show bits" : "Show weight error";
    const button = h("button", { type: "button", class: "lt-button" }, words);
    button.addEventListener("click", () => {
      this.byError = !there || !this.byError;
      if (!there) this.ask();
      this.events.again();
    });
    return button;
  }

  private ask(): void {
    this.state = "comparing the weights of both files\u2026";
    this.events
      .errors()
      .then(
        () => {
          this.state = "";
        },
        (error: Error) => {
          this.state = error.message;
        },
      )
      .finally(() => this.events.again());
  }
}

function errorOverlay(values: Float32Array): Overlay {
  const words = "relative error: RMSE of B\u2019s weights over the RMS of A\u2019s";
  return quantity("error", "Weight error", words, values, "linear", figure);
}

function row(map: ByteMap, heading: string, ...words: Node[]): HTMLElement {
  const beside = h("div", { class: "lt-at-side-words" }, h("h3", {}, h("b", {}, heading)), ...words);
  return h("div", { class: "lt-at-side" }, beside, map.element);
}

function sizeOf(data: TreeData, theme: Theme): Node[] {
  const bits = data.bits(0);
  return [
    h("div", {}, bytes(data.bytes[0]!)),
    h("div", {}, Number.isNaN(bits) ? "" : `${bits.toFixed(2)} bits per weight`),
    typeCounts(data, theme),
  ];
}

/** What B has more or less than A. */
function change({ a, b, pairs }: Look["models"]): Node[] {
  const bits = b.bits(0) - a.bits(0);
  const shared = pairs.reduce((n, p) => n + (p >= 0 && b.leafType[p]! >= 0 ? 1 : 0), 0);
  const lines = [
    h("div", {}, signed(b.bytes[0]! - a.bytes[0]!, bytes)),
    h("div", {}, Number.isNaN(bits) ? "" : `${signed(bits, (v) => v.toFixed(2))} bits per weight`),
    h("div", { class: "lt-quiet" }, "drawn on A\u2019s bytes"),
  ];
  const more = b.tensors[0]! - shared;
  if (more > 0) lines.push(h("div", { class: "lt-quiet" }, `${plural(more, "tensor")} only in B`));
  return lines;
}
