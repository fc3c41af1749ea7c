// The operator graph: time of every layer as bars, and the operations of one layer from left to right.
// In: GraphData, the tree, what is chosen. Out: DOM; a click on a layer or a weight chooses it in the tree.
import { css, mix, type Rgb } from "../shared/colour";
import { type Cleanup, Floating, h, s } from "../shared/dom";
import { count, plural } from "../shared/format";
import type { Theme } from "../shared/theme";
import { inkOn, typeColour } from "./colours";
import type { TreeData } from "./data";
import { type Box, type GraphData, layoutPlace, type Place } from "./graph_data";

export interface GraphEvents {
  /** A layer was chosen; -1 = what is before or after all layers. */
  layer(layer: number): void;
  leaf(leaf: number): void;
  run(): void;
}

const [HEIGHT, GAP, ROW_GAP] = [36, 13, 10];
/** Least and greatest width (px) of an operation: between them all fit side by side where they can. */
const [NARROWEST, WIDEST] = [68, 108];
const BARS = 44;

/** "43.7 µs", "1.2 ms", "2.8 s". */
export function time(seconds: number): string {
  if (seconds === 0) return "0";
  if (Number.isNaN(seconds)) return "\u2013";
  for (const [unit, size] of [
    ["s", 1],
    ["ms", 1e-3],
  ] as const)
    if (seconds >= 0.9995 * size)
      return `${(seconds / size).toFixed(seconds < 9.995 * size ? 1 : 0)}\u202f${unit}`;
  return `${(seconds * 1e6).toFixed(seconds < 9.95e-6 ? 1 : 0)}\u202f\u00b5s`;
}

export class GraphPanel {
  readonly element = h("section", { class: "lt-at-graph", "aria-label": "Operator graph" });
  private readonly title = h("h3", {});
  private readonly bars = h("canvas", { role: "img" });
  private readonly barsBox = h("div", { class: "lt-at-bars" });
  private readonly ring = h("div", { class: "lt-ring lt-ring-lock", hidden: true });
  private readonly words = h("h4", {});
  private readonly plot = h("div", { class: "lt-at-plot", tabindex: 0, role: "group" });
  private readonly offer = h("div", { class: "lt-at-offer" });
  private readonly button = h(
    "button",
    { type: "button", class: "lt-button" },
    "Run a prompt, show its operations",
  );
  private readonly state = h("span", { class: "lt-quiet", role: "status" });
  private readonly tip = new Floating("lt-tip lt-at-tip");
  private graph: GraphData | null = null;
  private place: Place | null = null;
  private key = "";
  private step = WIDEST + GAP;

  constructor(
    private readonly events: GraphEvents,
    cleanup: Cleanup,
  ) {
    this.offer.append(this.button, this.state);
    this.barsBox.append(this.bars, this.ring);
    this.element.append(this.title, this.offer, this.barsBox, this.words, this.plot, this.tip.element);
    cleanup.on(this.button, "click", () => events.run());
    cleanup.on<MouseEvent>(this.bars, "click", (e) => {
      const place = this.placeAt(e);
      if (place) this.choose(place);
    });
    cleanup.on<PointerEvent>(this.bars, "pointermove", (e) => {
      const place = this.placeAt(e);
      if (place && this.graph) this.bars.title = `${this.graph.placeName(place)}: ${time(place.seconds)}`;
    });
    cleanup.on(window, "scroll", () => this.tip.hide(), { capture: true, passive: true });
    cleanup.add(() => this.tip.hide());
  }

  /** Without a graph: a button that makes one, or why there can be none. */
  showOffer(why: string | null, state: string): void {
    this.graph = null;
    this.key = "";
    this.title.replaceChildren(
      h("b", {}, "Operator graph"),
      "what llama.cpp computes, read from a running prompt",
    );
    for (const e of [this.barsBox, this.words, this.plot]) e.hidden = true;
    this.offer.hidden = false;
    this.button.hidden = why !== null;
    this.state.textContent = why ?? state;
    this.button.toggleAttribute("disabled", state !== "");
  }

  show(
    graph: GraphData,
    tree: TreeData,
    layer: number | null,
    leaf: number,
    theme: Theme,
    width: number,
    ratio: number,
  ): void {
    if (graph !== this.graph) this.place = null;
    this.graph = graph;
    for (const e of [this.barsBox, this.words, this.plot]) e.hidden = false;
    this.offer.hidden = true;
    const free = countFree(graph);
    this.title.replaceChildren(
      h("b", {}, "Operator graph"),
      `${count(graph.count - free)} operations and ${count(free)} views of a prompt of ${plural(graph.facts.n_tokens, "token")}${graph.facts.seconds === null ? "" : `, ${time(graph.facts.seconds)} without stops`}`,
    );
    this.title.title = graph.facts.provenance;
    this.place = this.placeFor(layer, leaf);
    this.drawBars(graph, theme, width, ratio);
    const key = `${graph.places.indexOf(this.place!)},${leaf},${width},${css(theme.paper)},${css(theme.ink)}`;
    if (key !== this.key && this.place) this.drawPlace(graph, this.place, tree, leaf, theme, width);
    this.key = key;
  }

  /** The place of what is chosen: its layer, or where its weight is read; else the one that was shown, or the first layer. */
  private placeFor(layer: number | null, leaf: number): Place | null {
    const { places } = this.graph!;
    if (layer !== null) return places.find((p) => p.layer === layer) ?? this.place ?? places[0] ?? null;
    const reader = leaf < 0 ? -1 : this.graph!.weight.indexOf(leaf);
    if (reader >= 0) return places.find((p) => p.operations.includes(reader)) ?? null;
    return this.place ?? places.find((p) => p.layer >= 0) ?? places[0] ?? null;
  }

  private choose(place: Place): void {
    this.place = place;
    this.events.layer(place.layer);
  }

  // ------------------------------------------------------------------------------- bars

  private placeAt(e: MouseEvent): Place | undefined {
    const box = this.bars.getBoundingClientRect();
    const { places } = this.graph!;
    return places[Math.floor(((e.clientX - box.left) / Math.max(1, box.width)) * places.length)];
  }

  private drawBars(graph: GraphData, theme: Theme, width: number, ratio: number): void {
    const { places } = graph;
    const most = greatest(places.map((p) => p.seconds));
    this.bars.width = Math.round(width * ratio);
    this.bars.height = Math.round(BARS * ratio);
    this.bars.style.width = `${width}px`;
    this.bars.style.height = `${BARS}px`;
    const ctx = this.bars.getContext("2d");
    const step = width / Math.max(1, places.length);
    if (ctx) {
      ctx.scale(ratio, ratio);
      ctx.fillStyle = css(theme.ink2);
      places.forEach((p, i) => {
        const tall = most > 0 && !Number.isNaN(p.seconds) ? Math.max(1, (p.seconds / most) * (BARS - 4)) : 1;
        ctx.fillRect(i * step, BARS - tall, Math.max(0.6, step - (step > 4 ? 1 : 0)), tall);
      });
    }
    const slowest = places.find((p) => p.seconds === most);
    const found =
      slowest && most > 0 ? `most time in ${graph.placeName(slowest)}, ${time(most)}` : "not timed";
    this.bars.setAttribute("aria-label", `Time per layer: ${found}`);
    const at = places.indexOf(this.place!);
    this.ring.hidden = at < 0;
    this.ring.style.transform = `translate(${at * step - 1}px, -1px)`;
    this.ring.style.width = `${Math.max(4, step) + 1}px`;
    this.ring.style.height = `${BARS + 2}px`;
  }

  // --------------------------------------------------------------------------- one place

  private drawPlace(
    graph: GraphData,
    place: Place,
    tree: TreeData,
    leaf: number,
    theme: Theme,
    width: number,
  ): void {
    this.tip.hide(); // of an operation that goes
    const boxes = layoutPlace(graph, place);
    const total = place.seconds;
    const timed = Number.isNaN(total) ? "" : ` \u00b7 ${time(total)}, operations one by one`;
    const name = graph.placeName(place);
    this.words.replaceChildren(
      h("b", {}, name.charAt(0).toUpperCase() + name.slice(1)),
      `${plural(boxes.length, "operation")}${timed}`,
    );
    const most = greatest(boxes.map((b) => graph.seconds[b.operation]!));
    const columns = Math.max(1, ...boxes.map((b) => b.column + 1));
    this.step = Math.floor(Math.max(NARROWEST, Math.min(WIDEST, (width - 4 + GAP) / columns - GAP))) + GAP;
    const rows = Math.max(1, ...boxes.map((b) => b.row + 1));
    const [w, t] = [columns * this.step - GAP + 4, rows * (HEIGHT + ROW_GAP) + 4];
    const svg = s("svg", { width: w, height: t, viewBox: `-2 -2 ${w} ${t}`, role: "group" });
    const at = new Map(boxes.map((b) => [b.operation, b]));
    const lines = s("g", { fill: "none", stroke: css(theme.ink3), "stroke-width": 1 });
    for (const box of boxes)
      for (const source of box.from) lines.append(edge(at.get(source)!, box, this.step));
    svg.append(lines, ...boxes.map((box) => this.box(graph, box, tree, leaf, theme, most)));
    this.plot.replaceChildren(svg);
    this.plot.setAttribute("aria-label", `Operations of ${name}, from left to right`);
  }

  private box(
    graph: GraphData,
    box: Box,
    tree: TreeData,
    leaf: number,
    theme: Theme,
    most: number,
  ): SVGElement {
    const { operation } = box;
    const [x, y] = [box.column * this.step, box.row * (HEIGHT + ROW_GAP)];
    const seconds = graph.seconds[operation]!;
    const fill: Rgb =
      Number.isNaN(seconds) || most <= 0
        ? theme.plate
        : mix(theme.paper, theme.sequential[Math.round(255 * 0.6 * Math.sqrt(seconds / most))]!, 0.9);
    const weight = graph.weight[operation]!;
    const mine = weight >= 0 && weight === leaf;
    const ink = inkOn(fill);
    const room = Math.floor((this.step - GAP - 9) / 6.9);
    const label = (text: string, dy: number, size: number, bold: boolean) => {
      const e = s("text", {
        x: x + 7,
        y: y + dy,
        "font-size": size,
        "font-weight": bold ? 600 : 400,
        fill: ink,
      });
      e.textContent = text;
      return e;
    };
    const g = s(
      "g",
      {
        class: weight >= 0 ? "lt-at-op lt-at-reads" : "lt-at-op",
        role: "img",
        "aria-label": operationWords(graph, operation),
      },
      s("rect", {
        x,
        y,
        width: this.step - GAP,
        height: HEIGHT,
        fill: css(fill),
        stroke: css(mine ? theme.accent : theme.line2),
        "stroke-width": mine ? 2.5 : 1,
      }),
      label(short(graph.name(operation), room), 15, 11, true),
      label(short(graph.operation(operation).toLowerCase(), Math.floor(room * 1.25)), 28, 10, false),
    );
    if (weight >= 0)
      g.append(
        s("rect", { x, y, width: 4, height: HEIGHT, fill: css(typeColour(tree.typeOf(weight), theme)) }),
      );
    g.addEventListener("pointerenter", () => this.explain(graph, operation, tree, g));
    g.addEventListener("pointerleave", () => this.tip.hide());
    if (weight >= 0) g.addEventListener("click", () => this.events.leaf(weight));
    return g;
  }

  private explain(graph: GraphData, operation: number, tree: TreeData, target: SVGElement): void {
    const weight = graph.weight[operation]!;
    const lines = [
      h("div", { class: "lt-at-tip-name" }, h("bdi", {}, graph.name(operation))),
      h("div", {}, `${graph.operation(operation)} \u2192 ${graph.shape(operation)} ${graph.type(operation)}`),
      h(
        "div",
        {},
        h("b", {}, time(graph.seconds[operation]!)),
        ` on ${graph.backend(operation)}${graph.fused(operation) ? " \u00b7 fused: several steps in one" : ""}`,
      ),
    ];
    if (weight >= 0)
      lines.push(
        h(
          "div",
          { class: "lt-quiet" },
          "reads ",
          h("bdi", {}, tree.fullName(weight)),
          ` (${tree.typeOf(weight)?.name ?? ""})`,
        ),
      );
    this.tip.element.replaceChildren(...lines);
    this.tip.show(target.getBoundingClientRect(), [], 8);
  }
}

function operationWords(graph: GraphData, i: number): string {
  return `${graph.name(i)}, ${graph.operation(i)}, ${graph.shape(i)}, ${time(graph.seconds[i]!)}`;
}

/** The greatest time; 0 where nothing was timed. */
function greatest(seconds: readonly number[]): number {
  return Math.max(0, ...seconds.filter((s) => !Number.isNaN(s)));
}

function countFree(graph: GraphData): number {
  let free = 0;
  for (let i = 0; i < graph.count; i++) if (graph.isFree(i)) free++;
  return free;
}

function edge(from: Box, to: Box, step: number): SVGElement {
  const middle = (box: Box) => box.row * (HEIGHT + ROW_GAP) + HEIGHT / 2;
  const [x1, y1] = [(from.column + 1) * step - GAP, middle(from)];
  const [x2, y2] = [to.column * step, middle(to)];
  const bend = Math.min(GAP, (x2 - x1) / 2);
  // What skips columns runs above or below the boxes between, in the gap of rows.
  const lane = to.column - from.column > 1 ? Math.max(y1, y2) + HEIGHT / 2 + ROW_GAP / 2 : null;
  const d =
    lane === null
      ? `M${x1},${y1} C${x1 + bend},${y1} ${x2 - bend},${y2} ${x2},${y2}`
      : `M${x1},${y1} C${x1 + bend},${y1} ${x1},${lane} ${x1 + bend},${lane} H${x2 - bend} C${x2},${lane} ${x2 - bend},${y2} ${x2},${y2}`;
  return s("path", { d });
}

function short(text: string, most: number): string {
  const characters = [...text];
  return characters.length <= most ? text : `${characters.slice(0, most - 1).join("")}\u2026`;
}
