// ExpertStrip's view: layers left to right, tokens top to bottom, experts side by side; the locked layer large.
// In: StripData, a state, a source of exact routing. Out: DOM in `root`, and changes of the state. Knows no Jupyter.
import { Segmented } from "../attention_grid/controls";
import { compose, type Part, toPng, toSvg } from "../attention_grid/picture";
import base from "../attention_grid/style.css";
import { Twin } from "../attention_grid/twin";
import { css } from "../shared/colour";
import { Announcer, Cleanup, copyText, download, Floating, Frame, h, Timer } from "../shared/dom";
import { bound, plural, weight } from "../shared/format";
import { Unavailable } from "../shared/kernel";
import { applyTheme, sameTheme, type Theme, type ThemeChoice, watchTheme } from "../shared/theme";
import type { LayerFacts, Measure, StripData } from "./data";
import { DetailView, type Status } from "./detail";
import { columnAt, type Hit, hit, type Layout, LOAD, layoutStrip } from "./layout";
import { CellPainter, drawnRow, type Look, paintOverview, shade, sourceRows } from "./paint";
import style from "./style.css";
import { choiceWords, layerWords, loadWords, subtitle, tokenName } from "./words";

/** The shared state: the public traits. */
export interface State {
  readonly layer: number | null;
  readonly token: number | null;
  readonly expert: number | null;
  readonly measure: Measure;
  readonly theme: ThemeChoice;
}

/** Where exact routing comes from, and who hears what the user does. What does not come rejects with `Unavailable`. */
export interface Source {
  /** Puts a layer into the data; resolves when it is there. */
  layer(layer: number): Promise<void>;
  /** Puts one token's choices in all layers into the data. */
  token(token: number): Promise<void>;
  change(patch: Partial<State>): void;
}

const NARROW = 600;
const WIDE = 900;
let views = 0;

export class ExpertStripView {
  private readonly cleanup = new Cleanup();
  private readonly announcer = new Announcer(this.cleanup);
  private readonly title = h("h2", {});
  private readonly dot = h("span", { class: "lt-dot", "aria-hidden": "true" });
  private readonly provenanceText = h("span", {});
  private readonly provenance = h(
    "button",
    { type: "button", class: "lt-provenance" },
    this.dot,
    this.provenanceText,
  );
  private readonly measure: Segmented<Measure>;
  private readonly controls: HTMLElement;
  private readonly message = h("div", { class: "lt-empty", hidden: true });
  private readonly overview = h("div", { class: "lt-overview" });
  private readonly canvas = h("canvas", { role: "img" });
  private readonly painter = new CellPainter();
  private readonly hoverRing = h("div", { class: "lt-ring lt-ring-hover", hidden: true });
  private readonly lockRing = h("div", { class: "lt-ring lt-ring-lock", hidden: true });
  private readonly focusRing = h("div", { class: "lt-ring lt-ring-focus", hidden: true });
  private readonly twin: Twin;
  private readonly tip = new Floating("lt-tip lt-es-tip");
  private readonly delay: Timer;
  private readonly legend = h("div", { class: "lt-legend" });
  private readonly hint = h("p", { class: "lt-quiet lt-open-hint" }, "Click a cell to open its layer.");
  private readonly detail: DetailView;
  private readonly footer: HTMLElement;
  private readonly frame: Frame;
  private theme: Theme;
  private layout: Layout | null = null;
  private width = 0;
  private live = true;
  private cursor: [number, number] = [0, 0];
  private focused = false;
  private byKeys = true;
  private isolated: number | null = null;
  private asked: { layer: number; status: Status; problem: string } | null = null;
  private askedToken: number | null = null;

  constructor(
    private readonly root: HTMLElement,
    private readonly source: Source,
    private data: StripData,
    private state: State,
  ) {
    const { cleanup } = this;
    root.classList.add("lt-root", "lt-es");
    this.measure = new Segmented<Measure>(
      "Cells show",
      [
        ["experts", "Experts", "The chosen experts, each at its place; colour = weight"],
        ["weight", "Top weight", "The greatest weight of the token"],
        ["evenness", "Evenness", "How evenly the weights are spread over the chosen experts: 1 = all alike"],
      ],
      cleanup,
      (measure) => this.source.change({ measure }),
    );
    this.twin = new Twin("Experts", "overview", (row, column) => this.say(row, column), `es-${++views}`);
    this.delay = new Timer(cleanup);
    this.detail = new DetailView({
      token: (token) => this.choose({ token, expert: null }),
      layer: (layer) => this.choose({ layer, expert: null }),
      expert: (expert) => this.choose({ expert }),
      retry: () => this.need(true),
    });
    this.controls = h("div", { class: "lt-controls" }, this.measure.element, hints());
    this.overview.append(
      this.canvas,
      this.hoverRing,
      this.lockRing,
      this.focusRing,
      this.twin.element,
      this.tip.element,
    );
    this.footer = this.makeFooter();
    root.append(
      h("style", {}, base),
      h("style", {}, style),
      h("header", { class: "lt-header" }, this.title, this.provenance),
      this.message,
      this.controls,
      this.overview,
      this.legend,
      this.hint,
      this.detail.element,
      this.footer,
      this.announcer.element,
    );
    cleanup.on(this.provenance, "click", () => this.copyDetails());
    cleanup.on<PointerEvent>(this.canvas, "pointermove", (e) => this.over(e));
    cleanup.on(this.canvas, "pointerleave", () => this.hideTip());
    cleanup.on<MouseEvent>(this.canvas, "click", (e) => this.click(e));
    cleanup.on<MouseEvent>(this.canvas, "dblclick", (e) => this.double(e));
    cleanup.on(this.twin.element, "focus", () => this.focus(true));
    cleanup.on(this.twin.element, "blur", () => this.focus(false));
    cleanup.on(window, "scroll", () => this.hideTip(), { capture: true, passive: true });
    // Before Lumino's document-level listener sees it, and only keys that the widget uses.
    cleanup.on<KeyboardEvent>(window, "keydown", (e) => this.key(e), { capture: true });
    this.frame = new Frame(cleanup, () => this.render());
    this.theme = applyTheme(root, state.theme);
    cleanup.add(watchTheme(root, () => this.retheme()));
    const observer = new ResizeObserver(() => this.resize());
    observer.observe(root);
    cleanup.add(() => observer.disconnect());
    this.need(false);
    this.resize();
  }

  /** Another trace, or layers that have come. */
  setData(data: StripData): void {
    this.data = data;
    this.asked = null;
    this.need(false);
    this.layout = null;
    this.frame.ask();
  }

  /** The shared state changed, here or elsewhere. */
  setState(state: State): void {
    const before = this.state;
    this.state = state;
    if (state.theme !== before.theme) this.theme = applyTheme(this.root, state.theme);
    this.need(false);
    this.frame.ask();
  }

  /** Whether a kernel answers. A saved picture says that it is one. */
  setLive(live: boolean): void {
    if (live === this.live) return;
    this.live = live;
    this.frame.ask();
  }

  destroy(): void {
    this.tip.hide();
    this.detail.destroy();
    this.cleanup.run();
    this.root.replaceChildren();
    this.root.classList.remove("lt-root", "lt-es", "lt-dark", "lt-wide", "lt-middle", "lt-narrow");
    this.root.removeAttribute("style");
  }

  // ---------------------------------------------------------------------- exact routing

  /** Sees that the locked layer and token are here. */
  private need(again: boolean): void {
    const { layer, token } = this.state;
    if (
      token !== null &&
      token < this.data.tokens &&
      !this.data.hasToken(token) &&
      this.askedToken !== token
    ) {
      this.askedToken = token;
      this.source.token(token).then(
        () => this.frame.ask(),
        () => undefined, // the layers that are here are shown; the others say so
      );
    }
    if (layer === null || !this.data.has(layer) || this.data.isExact(layer)) {
      this.asked = null;
      return;
    }
    if (this.asked?.layer === layer && !again) return;
    const mine = { layer, status: "loading" as Status, problem: "" };
    this.asked = mine;
    const settle = (status: Status, problem = "") => {
      mine.status = status;
      mine.problem = problem;
      if (this.asked === mine) this.frame.ask();
    };
    this.source.layer(layer).then(
      () => settle("exact"),
      (e: unknown) =>
        settle(
          e instanceof Unavailable && e.why === "no-kernel" ? "no-kernel" : "error",
          e instanceof Error ? e.message : String(e),
        ),
    );
    if (again) this.frame.ask();
  }

  // --------------------------------------------------------------------------- drawing

  private resize(): void {
    const own = getComputedStyle(this.root);
    const inner =
      this.root.clientWidth -
      (Number.parseFloat(own.paddingLeft) || 0) -
      (Number.parseFloat(own.paddingRight) || 0);
    if (inner < 60) return;
    const rethemed = this.retheme();
    if (inner === this.width && !rethemed) return;
    this.width = inner;
    this.layout = null;
    this.render();
  }

  private retheme(): boolean {
    const theme = applyTheme(this.root, this.state.theme);
    if (sameTheme(theme, this.theme)) return false;
    this.theme = theme;
    this.frame.ask();
    return true;
  }

  private get ratio(): number {
    return Math.max(1, Math.min(4, window.devicePixelRatio || 1));
  }

  private get look(): Look {
    const { theme, ratio, state, isolated } = this;
    return { theme, ratio, measure: state.measure, layer: state.layer, token: this.token, isolated };
  }

  /** The chosen token, where the prompt has it. */
  private get token(): number | null {
    const { token } = this.state;
    return token !== null && token < this.data.tokens ? token : null;
  }

  /** The expert that is marked: the chosen one, else the token's strongest. */
  private get expert(): number | null {
    const { expert, layer } = this.state;
    if (expert !== null) return expert < this.data.facts.n_experts ? expert : null;
    if (layer === null || this.token === null) return null;
    return this.data.choices(layer, this.token)?.[0]?.expert ?? null;
  }

  private render(): void {
    if (this.width === 0) return;
    const { data, width, state } = this;
    const mode = width >= WIDE ? "wide" : width >= NARROW ? "middle" : "narrow";
    for (const m of ["wide", "middle", "narrow"]) this.root.classList.toggle(`lt-${m}`, m === mode);
    this.renderHeader();
    const nothing = data.facts.message !== "";
    this.message.hidden = !nothing;
    this.message.textContent = data.facts.message;
    for (const e of [this.controls, this.overview, this.legend, this.footer]) e.hidden = nothing;
    if (nothing) {
      this.hint.hidden = true;
      this.detail.hide();
      return;
    }
    this.measure.show(state.measure);
    this.layout ??= layoutStrip(data, width);
    paintOverview(this.canvas, this.painter, data, this.layout, this.look);
    this.overview.style.height = `${this.layout.height}px`;
    this.renderLegend();
    this.rings();
    this.describe();
    const layer = state.layer === null ? undefined : data.byLayer.get(state.layer);
    this.hint.hidden = layer !== undefined;
    if (!layer) {
      this.detail.hide();
      return;
    }
    const status =
      data.isExact(layer.layer) || layer.used === 0 ? "exact" : (this.asked?.status ?? "loading");
    this.detail.show(data, layer, {
      ...this.look,
      width,
      wide: mode === "wide",
      expert: this.expert,
      status,
      problem: this.asked?.problem ?? "",
    });
  }

  private renderHeader(): void {
    const { facts } = this.data;
    this.title.replaceChildren(h("b", {}, facts.title), h("span", {}, subtitle(this.data)));
    this.provenance.classList.toggle("lt-stale", !this.live);
    this.provenanceText.textContent = this.provenanceLine();
    this.provenance.title = `Click copies the details\n${this.detailsText()}`;
    this.provenance.setAttribute("aria-label", `${this.provenanceLine()}. Copy the details`);
  }

  private provenanceLine(): string {
    const { facts } = this.data;
    if (this.live) return facts.provenance;
    return `${facts.provenance} \u00b7 ${facts.saved ? `saved ${facts.saved}, ` : ""}not live`;
  }

  private detailsText(): string {
    const lines = Object.entries(this.data.facts.details).map(([k, v]) => `${k}: ${v}`);
    return [this.provenanceLine(), ...lines].join("\n");
  }

  private async copyDetails(): Promise<void> {
    const done = await copyText(this.detailsText());
    this.provenanceText.textContent = done ? "Copied" : "Copying is not allowed here";
    this.announcer.say(this.provenanceText.textContent);
    this.cleanup.later(1200, () => this.renderHeader());
  }

  /** Ends of the scale, and what its colour means. */
  private get scale(): { ticks: [number, string][]; words: string; more: string } {
    const { measure } = this.state;
    if (measure === "evenness")
      return {
        ticks: [
          [0, "1"],
          [1, "0"],
        ],
        words: "evenness of the token\u2019s weights: 1 = its experts count alike, 0 = one counts alone",
        more: "plain = not computed, or no choice",
      };
    const { most } = this.data.facts;
    return {
      ticks: [
        [0, "0"],
        [0.5, bound(most / 2)],
        [1, bound(most)],
      ],
      words:
        measure === "weight"
          ? "greatest weight of the token"
          : "weight; paper = not chosen, plain = not computed",
      more:
        measure === "experts"
          ? "each layer: its experts side by side, E0 at the left"
          : "plain = not computed",
    };
  }

  private renderLegend(): void {
    const stops = Array.from({ length: 9 }, (_, i) => css(shade(this.theme, i / 8)));
    const ramp = h("div", { class: "lt-ramp" });
    ramp.style.background = `linear-gradient(to right, ${stops.join(",")})`;
    const { ticks, words, more } = this.scale;
    const marks = ticks.map(([at, label]) => {
      const mark = h("span", { class: at === 1 ? "lt-end" : "" }, label);
      mark.style.left = `${at * 100}%`;
      if (at === 0) mark.style.transform = "none";
      return mark;
    });
    this.legend.replaceChildren(
      h("div", { class: "lt-scale" }, ramp, h("div", { class: "lt-ticks" }, ...marks)),
      h("div", {}, h("div", {}, words), h("div", { class: "lt-quiet" }, more)),
    );
  }

  private rings(): void {
    const { layout, data } = this;
    if (!layout) return;
    const at = (ring: HTMLElement, index: number, row: number | null, out: number) => {
      const { x, band } = columnAt(layout, index);
      const top = row === null ? band.top : band.top + row * layout.row;
      const tall = row === null ? layout.rows * layout.row : Math.max(3, layout.row);
      ring.hidden = false;
      ring.style.transform = `translate(${x - out}px, ${top - out}px)`;
      ring.style.width = `${layout.cell + 2 * out}px`;
      ring.style.height = `${tall + 2 * out - (layout.row >= 6 ? 1 : 0)}px`;
    };
    const index = data.facts.layers.findIndex((l) => l.layer === this.state.layer);
    this.lockRing.hidden = index < 0;
    if (index >= 0)
      at(this.lockRing, index, this.token === null ? null : drawnRow(data, layout, this.token), 3);
    this.focusRing.hidden = !(this.focused && this.byKeys);
    if (!this.focusRing.hidden) at(this.focusRing, this.cursor[1], this.cursor[0], 4);
  }

  private describe(): void {
    const { facts } = this.data;
    const layer = this.state.layer === null ? undefined : this.data.byLayer.get(this.state.layer);
    const locked = layer ? `Layer ${layer.layer}: ${layerWords(this.data, layer)}. ` : "";
    this.canvas.setAttribute("aria-label", `${locked}Experts of ${subtitle(this.data)}`);
    this.twin.label = `Experts: rows are tokens, columns are layers. ${plural(facts.layers.length, "layer")}. Enter locks`;
    if (this.focused) this.showTwin();
  }

  // --------------------------------------------------------------------------- choosing

  private choose(patch: Partial<State>): void {
    const changed = Object.entries(patch).some(([key, value]) => this.state[key as keyof State] !== value);
    if (!changed) return;
    this.source.change(patch);
    this.cleanup.later(60, () => this.announcer.say(this.detail.words));
  }

  private lock(index: number, row: number | null, expert: number | null): void {
    const layer = this.data.facts.layers[index];
    if (!layer) return;
    const token = row === null ? this.state.token : this.tokenAt(row);
    this.choose({ layer: layer.layer, token, expert });
  }

  private tokenAt(row: number): number {
    const mine = this.token;
    if (mine !== null && this.layout && drawnRow(this.data, this.layout, mine) === row) return mine;
    return this.data.span(sourceRows(this.data, this.layout!, row)[0])[0];
  }

  private isolate(index: number): void {
    const layer = this.data.facts.layers[index]?.layer ?? null;
    this.isolated = this.isolated === layer ? null : layer;
    this.announcer.say(this.isolated === null ? "All layers are shown" : `Only layer ${layer} is shown`);
    this.frame.ask();
  }

  /** Frees the innermost thing; true when there was one. */
  private free(): boolean {
    if (this.tip.shown || this.detail.previewing) {
      this.hideTip();
      this.detail.hideTip();
      return true;
    }
    if (this.isolated !== null) {
      this.isolated = null;
      this.frame.ask();
      return true;
    }
    if (this.state.expert !== null) {
      this.choose({ expert: null });
      return true;
    }
    if (this.state.layer === null) return false;
    this.choose({ layer: null });
    this.announcer.say("Nothing locked");
    return true;
  }

  // ---------------------------------------------------------------------------- pointer

  private at(e: MouseEvent): Hit | null {
    if (!this.layout) return null;
    const box = this.canvas.getBoundingClientRect();
    const found = hit(this.layout, this.data.facts.n_experts, e.clientX - box.left, e.clientY - box.top);
    if (!found || this.isolated === null) return found;
    return this.data.facts.layers[found.index]?.layer === this.isolated ? found : null;
  }

  private over(e: PointerEvent): void {
    if (e.pointerType === "touch" || e.buttons !== 0) return;
    const found = this.at(e);
    this.canvas.style.cursor = found ? "pointer" : "";
    if (found) this.preview(found);
    else this.hideTip();
  }

  private hideTip(): void {
    this.delay.stop();
    this.tip.hide();
    this.hoverRing.hidden = true;
  }

  private preview(at: Hit): void {
    const layer = this.data.facts.layers[at.index]!;
    const box = this.boxOf(at, layer);
    this.hoverRing.hidden = false;
    this.hoverRing.style.transform = `translate(${box.x - 2}px, ${box.y - 2}px)`;
    this.hoverRing.style.width = `${box.width + 4}px`;
    this.hoverRing.style.height = `${box.height + 4}px`;
    const canvas = this.canvas.getBoundingClientRect();
    const target = new DOMRect(canvas.left + box.x, canvas.top + box.y, box.width, box.height);
    const show = () => {
      this.tip.element.replaceChildren(...this.explain(at, layer));
      this.tip.show(target, this.lockRing.hidden ? [] : [this.lockRing.getBoundingClientRect()], 10);
    };
    if (this.tip.shown) show();
    else this.delay.start(80, show);
    const token = at.where === "cells" && layer.used > 0 ? this.tokenAt(at.row) : null;
    if (token === null || this.data.choices(layer.layer, token)) return;
    this.source.token(token).then(
      () => this.tip.shown && show(),
      () => undefined, // the tooltip keeps saying what the overview knows
    );
  }

  private boxOf(at: Hit, layer: LayerFacts): DOMRect {
    const layout = this.layout!;
    const { x, band } = columnAt(layout, at.index);
    const tall = layout.rows * layout.row;
    if (at.where === "load" && layer.used > 0) {
      const each = layout.cell / Math.max(1, this.data.facts.n_experts);
      return new DOMRect(x + Math.floor(at.expert * each), band.load - LOAD, Math.max(2, each), LOAD);
    }
    if (at.where !== "cells" || layer.used === 0) return new DOMRect(x, band.top, layout.cell, tall);
    const gap = layout.row >= 6 ? 1 : 0;
    return new DOMRect(x, band.top + at.row * layout.row, layout.cell, Math.max(2, layout.row - gap));
  }

  private explain(at: Hit, layer: LayerFacts): (Node | string)[] {
    const { data } = this;
    const name = h("b", {}, `Layer ${layer.layer} `);
    if (layer.used === 0) return [name, "no experts: all tokens go through one MLP"];
    if (at.where === "load")
      return [name, h("b", {}, `E${at.expert} `), loadWords(data, layer.layer, at.expert)];
    if (at.where !== "cells") {
      const even = layer.evenness ?? null;
      return [
        name,
        `${layerWords(data, layer)} \u00b7 evenness ${even === null ? "\u2013" : weight(even, 2)}`,
      ];
    }
    const token = this.tokenAt(at.row);
    const where = [tokenName(data, token), h("span", { class: "lt-quiet" }, ` in layer ${layer.layer}: `)];
    if (!data.computed(layer.layer, token)) return [...where, "not computed"];
    const choices = data.choices(layer.layer, token);
    if (!choices) return [...where, this.live ? "\u2026" : "exact weights need a kernel"];
    return [...where, choiceWords(choices)];
  }

  private click(e: MouseEvent): void {
    const found = this.at(e);
    if (!found) {
      this.free();
      return;
    }
    this.byKeys = false;
    this.cursor = [found.row, found.index];
    this.twin.element.focus({ preventScroll: true });
    this.hideTip();
    this.lock(
      found.index,
      found.where === "cells" ? found.row : null,
      found.where === "load" ? found.expert : null,
    );
  }

  private double(e: MouseEvent): void {
    const found = this.at(e);
    if (found) this.isolate(found.index);
  }

  // --------------------------------------------------------------------------- keyboard

  private focus(on: boolean): void {
    this.focused = on;
    if (!on) {
      this.hideTip();
      this.byKeys = true;
    }
    this.rings();
    if (on) this.showTwin();
  }

  private showTwin(): void {
    const { layout, data } = this;
    if (!layout) return;
    const locked = data.facts.layers.findIndex((l) => l.layer === this.state.layer);
    const row = this.token === null ? -1 : drawnRow(data, layout, this.token);
    this.twin.show(
      layout.rows,
      data.facts.layers.length,
      ...this.cursor,
      (r, c) => c === locked && (row < 0 || r === row),
    );
  }

  private say(row: number, column: number): string | null {
    const layer = this.data.facts.layers[column];
    if (!layer || !this.layout) return null;
    const token = this.tokenAt(row);
    const where = `${this.data.facts.tokens[token] ?? ""}, token ${token}, layer ${layer.layer}: `;
    if (layer.used === 0) return `${where}no experts`;
    if (!this.data.computed(layer.layer, token)) return `${where}not computed`;
    return where + (choiceWords(this.data.choices(layer.layer, token) ?? []) || "not read yet");
  }

  private key(event: KeyboardEvent): void {
    const path = event.composedPath();
    if (!path.includes(this.root) || event.isComposing || this.data.facts.message !== "") return;
    const target = path[0] as HTMLElement;
    const plain = !event.altKey && !event.ctrlKey && !event.metaKey;
    const overview = plain && target === this.twin.element && this.step(event);
    const table = plain && target === this.detail.focusable && this.detail.key(event);
    const used = event.key === "Escape" ? this.free() : overview || table;
    const native = target instanceof HTMLButtonElement && (event.key === "Enter" || event.key === " ");
    if (used) event.preventDefault();
    if (used || native || target instanceof HTMLSelectElement) event.stopPropagation();
    if (!used && target.getAttribute("role") === "radio") this.stepRadio(target, event);
  }

  private stepRadio(target: HTMLElement, event: KeyboardEvent): void {
    if (!event.key.startsWith("Arrow")) return;
    event.stopPropagation();
    event.preventDefault();
    const buttons = [...(target.parentElement?.querySelectorAll<HTMLElement>("[role=radio]") ?? [])];
    const move = event.key === "ArrowRight" || event.key === "ArrowDown" ? 1 : -1;
    const next = buttons[(buttons.indexOf(target) + move + buttons.length) % buttons.length];
    next?.focus();
    next?.click();
  }

  private step(event: KeyboardEvent): boolean {
    const { layout, data } = this;
    if (!layout) return false;
    const [row, column] = this.cursor;
    const last = data.facts.layers.length - 1;
    if (event.key === "Enter") {
      if (event.shiftKey) this.isolate(column);
      else this.lock(column, row, null);
      return true;
    }
    const steps: Record<string, [number, number]> = {
      ArrowLeft: [row, column - 1],
      ArrowRight: [row, column + 1],
      ArrowUp: [row - 1, column],
      ArrowDown: [row + 1, column],
      PageUp: [row, column - 5],
      PageDown: [row, column + 5],
      Home: [row, 0],
      End: [row, last],
    };
    const to = steps[event.key];
    if (!to) return false;
    this.byKeys = true;
    this.cursor = [Math.max(0, Math.min(layout.rows - 1, to[0])), Math.max(0, Math.min(last, to[1]))];
    this.rings();
    this.showTwin();
    this.preview({ index: this.cursor[1], row: this.cursor[0], where: "cells", expert: 0 });
    return true;
  }

  // ---------------------------------------------------------------------------- pictures

  private makeFooter(): HTMLElement {
    const save = (kind: "PNG" | "SVG") => {
      const b = h(
        "button",
        { type: "button", class: "lt-action", title: `Download this view as ${kind}` },
        kind,
      );
      this.cleanup.on(b, "click", () => this.save(kind));
      return b;
    };
    return h(
      "footer",
      { class: "lt-footer" },
      h(
        "span",
        { class: "lt-quiet" },
        "Choices and weights as llama.cpp applied them. Dashed: an even load.",
      ),
      h("span", { class: "lt-actions" }, save("PNG"), save("SVG")),
    );
  }

  private async save(kind: "PNG" | "SVG"): Promise<void> {
    const { facts } = this.data;
    const parts: Part[] = [
      {
        heading: ["", ""],
        canvas: this.canvas,
        boxes: [],
        under: "",
        notes: [],
        ramp: this.scale.ticks,
      },
    ];
    const layer = this.state.layer === null ? undefined : this.data.byLayer.get(this.state.layer);
    if (layer && layer.used > 0)
      parts.push({
        heading: [`Layer ${layer.layer}`, layerWords(this.data, layer)],
        canvas: this.detail.canvas,
        boxes: [],
        under: this.token === null ? "" : this.detail.words,
        notes: [],
        ramp: null,
      });
    const picture = compose(facts.title, subtitle(this.data), this.provenanceLine(), parts, this.theme);
    const blob = kind === "PNG" ? await toPng(picture, Math.max(2, this.ratio)) : toSvg(picture);
    const model = (facts.model || "model").replace(/[^\w.-]+/g, "_");
    download(`experts-${model}.${kind.toLowerCase()}`, blob);
    this.announcer.say(`${kind} saved`);
  }
}

function hints(): HTMLElement {
  const hint = (key: string, does: string) => h("span", { class: "lt-hint" }, h("kbd", {}, key), ` ${does}`);
  return h(
    "div",
    { class: "lt-hints", "aria-hidden": "true" },
    hint("\u2191\u2193\u2190\u2192", "step"),
    hint("\u21b5", "lock"),
    hint("Esc", "free"),
  );
}
