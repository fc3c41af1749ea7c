// HeadComparison's view: the map of all pairs, the list, both chosen heads with their difference.
// In: ComparisonData, a state, a source of replays. Out: DOM in `root`, and changes of the state. Knows nothing of Jupyter.
import { keyHint, Segmented, Toggle } from "../attention_grid/controls";
import { modeOf } from "../attention_grid/layout";
import { compose, type Part, type Row, toPng, toSvg } from "../attention_grid/picture";
import type { Replay } from "../attention_grid/replay";
import style from "../attention_grid/style.css";
import { Announcer, Cleanup, copyText, download, Frame, h } from "../shared/dom";
import { count, weight } from "../shared/format";
import { Unavailable } from "../shared/kernel";
import { applyTheme, sameTheme, type Theme, type ThemeChoice, watchTheme } from "../shared/theme";
import { ClustersView } from "./clusters";
import {
  type ComparisonData,
  type HeadId,
  headName,
  MEASURES,
  type Measure,
  type Pair,
  sameHead,
} from "./data";
import { ListView } from "./list";
import { MapView } from "./map";
import { computePair } from "./pair";
import { PlatesView, type Shown } from "./plates";
import own from "./style.css";
import { QueryStrip, sentence, statisticsTable } from "./words";

/** The shared state: the public traits. */
export interface State {
  readonly left: HeadId;
  readonly right: HeadId;
  readonly tokens: readonly number[];
  readonly measure: Measure;
  readonly scale: "log" | "linear";
  readonly sinkAside: boolean;
  readonly theme: ThemeChoice;
}

/** Where heads come from, and who hears what the user does. */
export interface Source {
  head(side: 0 | 1, head: HeadId): Replay | Promise<Replay>;
  change(patch: Partial<State>): void;
}

type Status =
  | { kind: "ready" }
  | { kind: "loading" }
  | { kind: "no-kernel" }
  | { kind: "error"; words: string };

/** The square of all heads is at most this wide where the map stands beside it. */
const SQUARE = 480;
const LIST = { wide: 8, middle: 6, narrow: 6 } as const;

export class HeadComparisonView {
  private readonly cleanup = new Cleanup();
  private readonly announcer = new Announcer(this.cleanup);
  private readonly title = h("h2", {});
  private readonly provenance = h("div", { class: "lt-provenances" });
  private readonly notes = h("div", { class: "lt-notice", role: "note", hidden: true });
  private readonly measure: Segmented<Measure>;
  private readonly scale: Segmented<"log" | "linear">;
  private readonly sink: Toggle;
  private readonly swap = h("button", { type: "button", class: "lt-button" }, "Swap A and B");
  private readonly layers = [0, 1].map(() => h("select", { class: "lt-select lt-layer" }));
  private readonly map: MapView;
  private readonly clusters: ClustersView;
  private readonly list: ListView;
  private readonly plates: PlatesView;
  private readonly strip: QueryStrip;
  private readonly mapTitle = h("h4", {});
  private readonly mapBox: HTMLElement;
  private readonly clustersBox: HTMLElement;
  private readonly over = h("div", { class: "lt-hc-over" });
  private readonly status = h("div", { class: "lt-notice", role: "status", hidden: true });
  private readonly sentence = h("div", { class: "lt-sentence" });
  private readonly table = h("div", { class: "lt-stats" });
  private readonly pairBox: HTMLElement;
  private readonly frame: Frame;
  private theme: Theme;
  private width = 0;
  private live = true;
  private shown: Shown | null = null;
  private now: Status = { kind: "loading" };
  private wanted = 0;

  constructor(
    private readonly root: HTMLElement,
    private readonly source: Source,
    private data: ComparisonData,
    private state: State,
  ) {
    const { cleanup } = this;
    root.classList.add("lt-root", "lt-hc");
    const measures = (Object.keys(MEASURES) as Measure[]).map(
      (m) => [m, MEASURES[m].name, `${MEASURES[m].name}: ${MEASURES[m].unit}, 0 to 1`] as const,
    );
    this.measure = new Segmented<Measure>("Distance", measures, cleanup, (m) => this.change({ measure: m }));
    this.scale = new Segmented<"log" | "linear">(
      "Scale",
      [
        ["linear", "Linear", "Weights from 0 to 1"],
        ["log", "Log", "Weights from 0.001 to 1, logarithmic"],
      ],
      cleanup,
      (scale) => this.change({ scale }),
    );
    this.sink = new Toggle(
      "Sink aside",
      "Set the first token (the sink) apart and leave it out of the difference\u2019s scale",
      cleanup,
      () => this.change({ sinkAside: !this.state.sinkAside }),
    );
    cleanup.on(this.swap, "click", () => this.choose({ left: this.state.right, right: this.state.left }));
    this.layers.forEach((select, side) => {
      select.setAttribute("aria-label", side === 0 ? "Layer of A" : "Layer of B");
      cleanup.on(select, "change", () => this.chooseLayer(side as 0 | 1, Number(select.value)));
    });
    this.map = new MapView(cleanup, (row, column) => {
      const pair = this.data.pairAt(row, column, this.pair);
      if (pair) this.choose(pair);
    });
    this.clusters = new ClustersView(cleanup, (pair) => this.choose(pair));
    this.list = new ListView(cleanup, (pair) => this.choose(pair));
    this.plates = new PlatesView(cleanup, (tokens) => this.chooseTokens(tokens));
    this.strip = new QueryStrip(cleanup, (query) => this.chooseTokens([query]));
    this.mapBox = h("section", { class: "lt-map-box" }, this.mapTitle, this.map.element);
    this.clustersBox = h(
      "section",
      { class: "lt-clusters-box" },
      h(
        "h4",
        {},
        h("b", {}, "Which heads attend alike"),
        h("span", {}, "all heads, clustered \u00b7 a click compares two"),
      ),
      this.clusters.element,
    );
    const right = h("div", { class: "lt-over-right" }, this.mapBox, this.list.element);
    this.over.append(...(data.facts.mode === "heads" ? [this.clustersBox] : []), right);
    const bottom = h("div", { class: "lt-bottom" }, this.strip.element, this.table);
    this.pairBox = h(
      "section",
      { class: "lt-pair" },
      this.status,
      this.sentence,
      this.plates.element,
      bottom,
    );
    root.append(
      h("style", {}, style, own),
      h("header", { class: "lt-header" }, this.title, this.provenance),
      this.notes,
      this.controls(),
      this.over,
      this.pairBox,
      this.footer(),
      this.announcer.element,
    );
    this.frame = new Frame(cleanup, () => this.render());
    this.theme = applyTheme(root, state.theme);
    cleanup.add(watchTheme(root, () => this.retheme()));
    // Before Lumino's document-level listener sees it, and only keys that the widget uses.
    cleanup.on<KeyboardEvent>(window, "keydown", (e) => this.key(e), { capture: true });
    const observer = new ResizeObserver(() => this.resize());
    observer.observe(root);
    cleanup.add(() => observer.disconnect());
    this.open();
    this.resize();
  }

  setData(data: ComparisonData): void {
    this.data = data;
    this.frame.ask();
  }

  setState(state: State): void {
    const before = this.state;
    this.state = state;
    if (state.theme !== before.theme) this.theme = applyTheme(this.root, state.theme);
    if (!sameHead(state.left, before.left) || !sameHead(state.right, before.right)) this.open();
    this.frame.ask();
  }

  /** Whether a kernel answers. A saved picture says that it is one. */
  setLive(live: boolean): void {
    if (live === this.live) return;
    this.live = live;
    if (live && this.now.kind === "no-kernel") this.open();
    this.frame.ask();
  }

  destroy(): void {
    this.wanted++;
    this.cleanup.run();
    this.root.replaceChildren();
    this.root.className = "";
    this.root.removeAttribute("style");
  }

  private get pair(): Pair {
    return { left: this.state.left, right: this.state.right };
  }

  private get together(): { rows: number; keys: number } | null {
    const { how, rows, keys } = this.data.facts;
    return how === "nothing" ? null : { rows, keys };
  }

  /** The chosen cell: what was selected, as far as it exists; else where the heads differ most. */
  private get cell(): readonly [number, number] | null {
    const { shown, state } = this;
    if (!shown) return null;
    const { difference, peak } = shown.result;
    const rows = difference?.covers.rows[1] ?? Math.max(shown.left.rows, shown.right.rows);
    const keys = difference?.covers.keys[1] ?? Math.max(shown.left.keys, shown.right.keys);
    const [query, key] = state.tokens;
    if (query === undefined || query >= rows) return peak;
    return [query, key !== undefined && key < keys ? key : this.strongest(query, keys)];
  }

  /** The key at which a query's rows differ most; the first key only where it is the only one. */
  private strongest(query: number, keys: number): number {
    const { shown } = this;
    if (!shown) return 0;
    const row = (r: Replay) => (query < r.rows ? r.row(query) : new Float32Array(0));
    const [a, b] = [row(shown.left), row(shown.right)];
    let best = 0;
    let most = 0;
    for (let k = 1; k < keys; k++) {
      const size = Math.abs((b[k] || 0) - (a[k] || 0));
      if (size > most) [best, most] = [k, size];
    }
    return best;
  }

  private controls(): HTMLElement {
    return h(
      "div",
      { class: "lt-controls" },
      this.measure.element,
      this.scale.element,
      this.sink.element,
      this.swap,
      ...this.layers,
      h(
        "div",
        { class: "lt-hints", "aria-hidden": "true" },
        keyHint("\u2191\u2193\u2190\u2192", "step"),
        keyHint("\u21b5", "compare"),
      ),
    );
  }

  private footer(): HTMLElement {
    const save = (kind: "PNG" | "SVG") => {
      const title = `Download this view as ${kind}`;
      const b = h("button", { type: "button", class: "lt-action", title }, kind);
      this.cleanup.on(b, "click", () => this.save(kind));
      return b;
    };
    const words =
      "Jensen\u2013Shannon divergence in bits and total variation, 0 = the same, 1 = nothing in common; means over queries that have a choice.";
    return h(
      "footer",
      { class: "lt-footer" },
      h("span", { class: "lt-quiet" }, words),
      h("span", { class: "lt-actions" }, save("PNG"), save("SVG")),
    );
  }

  private change(patch: Partial<State>): void {
    this.source.change(patch);
  }

  private choose(pair: Pair): void {
    if (sameHead(pair.left, this.state.left) && sameHead(pair.right, this.state.right)) return;
    this.change(pair);
    const names = sameHead(pair.left, pair.right)
      ? headName(pair.left)
      : `${headName(pair.left)} and ${headName(pair.right)}`;
    this.announcer.say(`${names}, compared`);
  }

  private chooseTokens(tokens: number[]): void {
    this.change({ tokens });
    const cell = this.cell;
    if (cell) this.announcer.say(this.plates.say(...cell) ?? "");
  }

  private chooseLayer(side: 0 | 1, layer: number): void {
    const { left, right } = this.state;
    const heads = this.data.layer(side, layer)?.heads ?? 1;
    const head = { layer, head: Math.min((side === 0 ? left : right).head, heads - 1) };
    this.choose(side === 0 ? { left: head, right } : { left, right: head });
  }

  /** Fetches both heads and computes what is drawn of them. */
  private open(): void {
    const mine = ++this.wanted;
    const { pair } = this;
    this.now = { kind: "loading" };
    const put = (now: Status) => {
      if (mine !== this.wanted) return;
      this.now = now;
      this.frame.ask();
    };
    const both = async () => {
      const [left, right] = await Promise.all([
        this.source.head(0, pair.left),
        this.source.head(1, pair.right),
      ]);
      const result = await computePair(left, right, this.together, () => mine === this.wanted);
      if (!result || mine !== this.wanted) return;
      this.shown = { pair, left, right, result };
      put({ kind: "ready" });
    };
    both().catch((e: unknown) =>
      put(
        e instanceof Unavailable && e.why === "no-kernel"
          ? { kind: "no-kernel" }
          : { kind: "error", words: e instanceof Error ? e.message : String(e) },
      ),
    );
  }

  private get ratio(): number {
    return Math.max(1, Math.min(4, window.devicePixelRatio || 1));
  }

  /** A hidden view has no width: it is drawn when it gets one. */
  private resize(): void {
    const css = getComputedStyle(this.root);
    const padding = (Number.parseFloat(css.paddingLeft) || 0) + (Number.parseFloat(css.paddingRight) || 0);
    const inner = this.root.clientWidth - padding;
    if (inner < 60) return;
    const rethemed = this.retheme();
    if (inner === this.width && !rethemed) return;
    this.width = inner;
    this.render();
  }

  private retheme(): boolean {
    const theme = applyTheme(this.root, this.state.theme);
    if (sameTheme(theme, this.theme)) return false;
    this.theme = theme;
    this.frame.ask();
    return true;
  }

  /** Brings everything on the screen to the present data and state. */
  private render(): void {
    if (this.width === 0) return;
    const { data, state } = this;
    const { mode } = data.facts;
    const size = modeOf(this.width);
    for (const m of ["wide", "middle", "narrow"]) this.root.classList.toggle(`lt-${m}`, m === size);
    this.renderHeader();
    this.measure.show(state.measure);
    this.scale.show(state.scale);
    this.sink.show(state.sinkAside);
    this.swap.hidden = mode !== "heads";
    this.measure.element.hidden = mode === "heads" || data.facts.how === "nothing";
    this.renderLayers();
    this.renderOverview();
    this.renderPair();
  }

  private renderHeader(): void {
    const { facts } = this.data;
    const [a, b] = [facts.sides[0]!, facts.sides[1]];
    const what =
      b === undefined
        ? [a.label, facts.mode === "layers" ? "two layers" : "two heads"]
        : [`${a.label} against ${b.label}`];
    const tokens = facts.how === "nothing" ? "" : `${count(facts.keys)} tokens`;
    this.title.replaceChildren(
      h("b", {}, facts.title),
      h("bdi", {}, [...what, tokens].filter(Boolean).join(" \u00b7 ")),
    );
    this.provenance.replaceChildren(
      ...facts.sides.map((side, i) => {
        const line = this.provenanceLine(i);
        const button = h(
          "button",
          {
            type: "button",
            class: `lt-provenance${this.live ? "" : " lt-stale"}`,
            title: "Copy the details",
          },
          h("span", { class: "lt-dot", "aria-hidden": "true" }),
          b ? h("b", {}, `${"AB"[i]} `) : null,
          line,
        );
        button.addEventListener("click", async () => {
          const details = Object.entries(side.details).map(([k, v]) => `${k}: ${v}`);
          if (await copyText([line, ...details].join("\n"))) this.announcer.say("Details copied");
        });
        return button;
      }),
    );
    this.notes.hidden = facts.notes.length === 0;
    this.notes.replaceChildren(...facts.notes.map((note) => h("div", {}, note)));
  }

  private provenanceLine(side: number): string {
    const { facts } = this.data;
    const { provenance } = facts.sides[side]!;
    if (this.live) return provenance;
    return `${provenance} \u00b7 ${facts.saved ? `saved ${facts.saved}, ` : ""}not live`;
  }

  /** In a comparison of two layers: which. The tables of other layers come from the kernel. */
  private renderLayers(): void {
    const { data, state } = this;
    this.layers.forEach((select, i) => {
      const side = i as 0 | 1;
      select.hidden = data.facts.mode !== "layers";
      if (select.hidden) return;
      const there = data.side(side).layers;
      const chosen = (side === 0 ? state.left : state.right).layer;
      select.replaceChildren(
        ...there.map((l) => h("option", { value: l.layer }, `${"AB"[side]}: layer ${l.layer}`)),
      );
      select.value = String(chosen);
      select.disabled = !this.live;
      select.title = this.live ? "" : "Other layers need a kernel: run the cell again";
    });
  }

  private renderOverview(): void {
    const { data, state, theme, ratio, width } = this;
    const { mode, sampled } = data.facts;
    const size = modeOf(width);
    const map = data.map(state.measure, state.left, state.right);
    const heads = mode === "heads";
    this.over.classList.toggle("lt-with-clusters", heads);
    const wide = size === "wide";
    const square = wide ? Math.min(SQUARE, Math.round(width * 0.44)) : width;
    const right = wide && heads ? width - square - 24 : width;
    this.over.style.gridTemplateColumns = wide && heads ? `${square}px minmax(0, 1fr)` : "minmax(0, 1fr)";
    if (heads) this.clusters.show(data, this.pair, { theme, ratio, width: square });
    const listed = wide && !heads ? 330 : 0;
    const none = data.facts.how === "nothing";
    const what = heads
      ? `Overlap with ${headName(state.left)}`
      : none
        ? "Heads of both"
        : MEASURES[state.measure].name;
    const unit = heads ? "1 = attends alike" : none ? "not comparable" : MEASURES[state.measure].unit;
    const axes =
      mode === "layers"
        ? `rows: heads of A, layer ${state.left.layer} \u00b7 columns: B, layer ${state.right.layer}`
        : unit;
    this.mapTitle.replaceChildren(
      h("b", {}, what),
      h(
        "span",
        {},
        [mode === "layers" ? axes : `${unit}, every head`, sampled].filter(Boolean).join(" \u00b7 "),
      ),
    );
    this.map.show(map, data.placeOf(this.pair), {
      theme,
      ratio,
      width: right - (listed ? listed + 28 : 0),
      words: heads ? `overlap with ${headName(state.left)}` : `${what}, ${unit}`,
      name: (row, column) => {
        const pair = data.pairAt(row, column, this.pair);
        if (!pair) return null;
        if (mode === "layers") return `${headName(pair.left)} \u2013 ${headName(pair.right)}`;
        const name = data.name(1, pair.right);
        return `${headName(pair.right)}${name ? ` (${name})` : ""}`;
      },
    });
    this.list.show(data, data.ranked(map, this.pair), this.pair, {
      alike: map.alike,
      most: map.most,
      start: heads && size === "wide" ? 6 : LIST[size],
      nearFirst: mode !== "traces",
    });
  }

  private renderPair(): void {
    const { shown, state, theme, ratio, width, data } = this;
    this.renderStatus();
    const size = modeOf(width);
    const stale =
      shown !== null && !(sameHead(shown.pair.left, state.left) && sameHead(shown.pair.right, state.right));
    const gone = shown === null || (stale && this.now.kind !== "loading");
    for (const e of [this.plates.element, this.sentence, this.strip.element]) e.hidden = gone;
    this.table.replaceChildren(
      h(
        "h4",
        {},
        h("b", {}, "Statistics"),
        h("span", {}, `A ${headName(state.left)} \u00b7 B ${headName(state.right)}`),
      ),
      statisticsTable(data, this.pair, size === "narrow"),
    );
    if (gone || !shown) return;
    const { cell } = this;
    const { scale, sinkAside } = state;
    this.plates.show(data, shown, cell, { theme, ratio, width, narrow: size === "narrow", scale, sinkAside });
    if (!cell) return;
    this.sentence.replaceChildren(...sentence(data, cell, this.plates.numbers(cell), shown.result));
    this.strip.show(data, shown.result, cell[0], state.measure, theme);
  }

  private renderStatus(): void {
    const { now } = this;
    this.status.hidden = now.kind === "ready" || now.kind === "loading";
    if (now.kind === "no-kernel")
      this.status.replaceChildren(
        h("b", {}, "These two heads need a kernel:"),
        " run the cell again. Map, list and statistics are all here.",
      );
    if (now.kind === "error") {
      const retry = h("button", { type: "button", class: "lt-button" }, "Try again");
      retry.addEventListener("click", () => this.open());
      this.status.replaceChildren(h("b", {}, "These heads could not be read."), ` ${now.words}`, retry);
    }
  }

  private key(event: KeyboardEvent): void {
    const path = event.composedPath();
    if (!path.includes(this.root) || event.isComposing) return;
    const target = path[0] as HTMLElement;
    const region = target.closest?.("[data-region]")?.getAttribute("data-region") ?? "";
    const views: Record<string, { key(e: KeyboardEvent): boolean }> = {
      map: this.map,
      clusters: this.clusters,
      list: this.list,
      plates: this.plates,
      strip: this.strip,
    };
    const used = event.key === "Escape" ? this.free() : (views[region]?.key(event) ?? false);
    if (used) event.preventDefault();
    const native = target instanceof HTMLButtonElement && (event.key === "Enter" || event.key === " ");
    const select =
      target instanceof HTMLSelectElement && event.key !== "Tab" && !event.ctrlKey && !event.metaKey;
    if (used || native || select) event.stopPropagation();
    if (!used && target.getAttribute("role") === "radio") this.stepRadio(target, event);
  }

  /** Arrows choose the next option of a segmented control. */
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

  /** Frees the innermost thing: a tooltip, then the chosen cell. */
  private free(): boolean {
    const tips = [this.map, this.clusters, this.plates].map((view) => view.free());
    if (tips.includes(true)) return true;
    if (this.state.tokens.length === 0) return false;
    this.change({ tokens: [] });
    return true;
  }

  private async save(kind: "PNG" | "SVG"): Promise<void> {
    const { facts } = this.data;
    const words = (e: HTMLElement) =>
      [e.firstElementChild?.textContent ?? "", e.lastElementChild?.textContent ?? ""] as const;
    const parts: Part[] = [
      {
        heading: words(this.mapTitle),
        canvas: this.map.canvas,
        boxes: this.map.boxes,
        under: "",
        notes: [],
        ramp: this.map.ticks,
        row: this.figures(),
      },
    ];
    const two = facts.sides.length === 2;
    const lines = facts.sides.map((_, i) => (two ? `${"AB"[i]}  ` : "") + this.provenanceLine(i));
    const subtitle = this.title.lastElementChild?.textContent ?? "";
    const picture = compose(facts.title, subtitle, lines, parts, this.theme);
    const blob = kind === "PNG" ? await toPng(picture, Math.max(2, this.ratio)) : toSvg(picture);
    const name = (facts.sides[0]?.model || "model").replace(/[^\w.-]+/g, "_");
    download(`comparison-${name}.${kind.toLowerCase()}`, blob);
    this.announcer.say(`${kind} saved`);
  }

  /** Both heads and their difference, for pictures. */
  private figures(): Row | null {
    if (!this.shown || this.plates.element.hidden) return null;
    const { result } = this.shown;
    const cell = this.cell;
    const distances = `JS ${weight(result.meanJs, 4)} bits \u00b7 TV ${weight(result.meanTv, 4)}`;
    return {
      steps: false,
      heading: [result.difference ? distances : "", cell ? (this.plates.say(...cell) ?? "") : ""],
      figures: this.plates.plates.flatMap((plate, i) =>
        plate.element.hidden
          ? []
          : [
              {
                title: [...plate.title.children].map((e) => e.textContent).join("  "),
                value: "",
                canvas: plate.canvas,
                boxes: this.plates.boxes(i),
                under: "",
                ticks: plate.ticks.map(([, tick]) => tick),
                diverging: i === 2,
              },
            ],
      ),
    };
  }
}
