// EmbeddingSpace3D's view: the cloud, its controls and legend, the search, the lists and the vector of a token.
// In: SpaceData, a state, a source of answers. Out: DOM in `root`, and changes of the state. Knows nothing of Jupyter.
import { keyHint, Segmented } from "../attention_grid/controls";
import { modeOf } from "../attention_grid/layout";
import { compose, toPng } from "../attention_grid/picture";
import base from "../attention_grid/style.css";
import { Announcer, Cleanup, copyText, download, Frame, h } from "../shared/dom";
import { count, plural, weight } from "../shared/format";
import { Unavailable } from "../shared/kernel";
import { applyTheme, sameTheme, type Theme, type ThemeChoice, watchTheme } from "../shared/theme";
import { codeOf, type Style, style } from "./colours";
import type { Column, Found, SpaceData } from "./data";
import { combine, type How } from "./lasso";
import { endWords, Legend } from "./legend";
import { Panel } from "./panel";
import { type Mode, Plate } from "./plate";
import { SearchBox } from "./search";
import own from "./style.css";
import { VectorView } from "./vector";

/** The shared state: the public traits. Tokens are ids. */
export interface State {
  readonly token: number | null;
  readonly tokens: readonly number[];
  readonly color: string;
  readonly projection: "umap" | "pca";
  readonly network: number | null;
  readonly search: string;
  readonly theme: ThemeChoice;
}

/** Where answers come from, and who hears what the user does. */
export interface Source {
  texts(rows: readonly number[]): Promise<void>;
  search(text: string): Promise<Found>;
  token(row: number): Promise<void>;
  stop(): void;
  start(): void;
  change(patch: Partial<State>): void;
}

const PANEL = 320;
const GAP = 22;
const TALL = 0.75;
const NEED = "needs a kernel: run the cell again";

export class EmbeddingSpaceView {
  private readonly cleanup = new Cleanup();
  private readonly announcer = new Announcer(this.cleanup);
  private readonly title = h("h2", {});
  private readonly provenance = h("button", {
    type: "button",
    class: "lt-provenance",
    title: "Copy the details",
  });
  private readonly projection: Segmented<"umap" | "pca">;
  private readonly colour: Segmented<string>;
  private readonly mode: Segmented<Mode>;
  private readonly side: Segmented<"a" | "b">;
  private readonly searchBox: SearchBox;
  private readonly progress: HTMLElement;
  private readonly progressWords = h("span", {});
  private readonly progressBar = h("i", {});
  private readonly stopButton = h("button", { type: "button", class: "lt-button" }, "Stop");
  private readonly note = h("div", { class: "lt-quiet lt-emb-note" });
  readonly plate: Plate;
  private readonly legend: Legend;
  private readonly panel: Panel;
  private readonly vector: VectorView;
  private readonly frame: Frame;
  private theme: Theme;
  private width = 0;
  private live = true;
  private isolated: number | null = null;
  private made: Style | null = null;
  private madeOf: readonly unknown[] = [];
  private asked: number | null = null;
  private why = "";

  constructor(
    private readonly root: HTMLElement,
    private readonly source: Source,
    private data: SpaceData,
    private state: State,
  ) {
    const { cleanup } = this;
    root.classList.add("lt-root", "lt-emb");
    const unique = crypto.getRandomValues(new Uint32Array(1))[0]!.toString(36);
    this.projection = new Segmented<"umap" | "pca">(
      "Projection",
      [
        ["umap", "UMAP", "Neighbours stay together; distances between groups mean little"],
        ["pca", "PCA", "The three directions of largest variance"],
      ],
      cleanup,
      (projection) => this.change({ projection }),
    );
    this.colour = new Segmented<string>(
      "Colour by",
      data.facts.columns.map(
        (c) => [c.name, c.label, c.unit || `Colour by ${c.label.toLowerCase()}`] as const,
      ),
      cleanup,
      (color) => {
        this.isolated = null;
        this.change({ color });
      },
    );
    this.mode = new Segmented<Mode>(
      "Drag",
      [
        ["orbit", "Orbit", "Dragging turns; with Shift it lassoes"],
        ["lasso", "Lasso \u21e7", "Dragging selects what the outline covers; Shift adds, Alt removes"],
      ],
      cleanup,
      (mode) => {
        this.plate.mode = mode;
        this.mode.show(mode);
      },
    );
    this.side = new Segmented<"a" | "b">(
      "Model",
      [
        ["a", "A", "Points as this model has them"],
        ["b", "B", "Points as the compared model has them; how they are placed stands under the picture"],
      ],
      cleanup,
      (side) => {
        this.data.second = side === "b";
        this.plate.morph();
        this.frame.ask();
      },
    );
    this.searchBox = new SearchBox(cleanup, unique, {
      find: (text) => this.find(text),
      typed: (search) => this.change({ search }),
      go: (row, text) => {
        this.data.putTexts([row], [text]);
        this.go(row);
      },
    });
    this.plate = new Plate(cleanup, unique, {
      lock: (row) => this.lock(row),
      lasso: (rows, how) => this.lasso(rows, how),
      isolate: (row) => this.isolateOf(row),
      hover: (row) => row !== null && this.needTexts([row]),
      words: (row) => this.tipWords(row),
      say: (row) => {
        const words = this.rowWords(row);
        this.announcer.say(words);
        return words;
      },
    });
    this.legend = new Legend(cleanup, (code) => this.isolate(code));
    this.panel = new Panel(cleanup, {
      go: (row) => this.go(row),
      look: (row) => this.plate.look(row),
      clear: () => this.change({ tokens: [] }),
      network: (network) => this.change({ network }),
    });
    this.vector = new VectorView(cleanup);
    cleanup.on(this.stopButton, "click", () =>
      this.data.facts.phase === "computing" ? source.stop() : source.start(),
    );
    cleanup.on(this.provenance, "click", async () => {
      const details = Object.entries(this.data.facts.details).map(([k, v]) => `${k}: ${v}`);
      if (await copyText([this.provenanceLine(), ...details].join("\n")))
        this.announcer.say("Details copied");
    });
    this.progress = h(
      "div",
      { class: "lt-notice lt-emb-progress", role: "status", hidden: true },
      this.progressWords,
      h("span", { class: "lt-track" }, this.progressBar),
      this.stopButton,
    );
    const left = h(
      "div",
      { class: "lt-emb-left" },
      this.plate.element,
      this.legend.element,
      this.note,
      this.panel.drift,
    );
    this.panel.element.append(this.vector.element);
    root.append(
      h("style", {}, base, own),
      h("header", { class: "lt-header" }, this.title, this.provenance),
      h(
        "div",
        { class: "lt-controls" },
        this.projection.element,
        h("span", { class: "lt-quiet" }, "Colour by"),
        this.colour.element,
        this.mode.element,
        this.side.element,
        this.searchBox.element,
      ),
      this.progress,
      h("div", { class: "lt-emb-main" }, left, this.panel.element),
      this.footer(),
      this.announcer.element,
      this.plate.tip.element,
    );
    this.frame = new Frame(cleanup, () => this.render());
    this.theme = applyTheme(root, state.theme);
    cleanup.add(watchTheme(root, () => this.retheme()));
    // Before Lumino's document-level listener sees it, and only keys that the widget uses.
    cleanup.on<KeyboardEvent>(window, "keydown", (e) => this.key(e), { capture: true });
    const observer = new ResizeObserver(() => this.resize());
    observer.observe(root);
    cleanup.add(() => observer.disconnect());
    this.mode.show("orbit");
    this.open();
    this.resize();
  }

  setData(data: SpaceData): void {
    const before = this.data;
    data.keep(before);
    this.data = data;
    this.open();
    this.frame.ask();
  }

  setState(state: State): void {
    const before = this.state;
    this.state = state;
    if (state.theme !== before.theme) this.theme = applyTheme(this.root, state.theme);
    if (state.token !== before.token) {
      this.open();
      const row = this.data.rowOf(state.token);
      if (row !== null) this.announcer.say(`${this.rowWords(row)}, locked`);
    }
    if (state.tokens !== before.tokens) this.needTexts(this.selected().slice(0, 60));
    this.frame.ask();
  }

  /** Whether a kernel answers. A saved picture says that it is one. */
  setLive(live: boolean): void {
    if (live === this.live) return;
    this.live = live;
    if (live) this.open();
    this.frame.ask();
  }

  destroy(): void {
    this.cleanup.run();
    this.root.replaceChildren();
    this.root.className = "";
    this.root.removeAttribute("style");
  }

  // ----------------------------------------------------------------------- selection

  private change(patch: Partial<State>): void {
    this.source.change(patch);
  }

  private selected(): number[] {
    return this.state.tokens.map((id) => this.data.rowOf(id)).filter((row): row is number => row !== null);
  }

  private lock(row: number | null): void {
    if (row === null && this.state.token === null) return;
    this.change({ token: row === null ? null : this.data.idOf(row) });
  }

  /** Locks a row and flies to it. */
  private go(row: number): void {
    this.plate.go(row);
    this.lock(row);
  }

  private lasso(rows: number[], how: How): void {
    const found = combine(this.selected(), rows, how);
    this.change({ tokens: found.map((row) => this.data.idOf(row)) });
    this.announcer.say(`${plural(found.length, "token")} selected`);
  }

  private isolate(code: number): void {
    this.isolated = this.isolated === code ? null : code;
    this.announcer.say(this.isolated === null ? "All are shown" : "Only these are shown");
    this.frame.ask();
  }

  private isolateOf(row: number): void {
    const code = codeOf(this.data, this.column, this.state.color === "cluster", row);
    if (code === null || code < 0) return;
    this.isolate(code);
  }

  /** Esc frees the innermost thing. */
  private free(): boolean {
    if (this.plate.hideTip()) return true;
    if (this.isolated !== null) {
      this.isolated = null;
      this.frame.ask();
      return true;
    }
    if (this.state.tokens.length > 0) {
      this.change({ tokens: [] });
      return true;
    }
    if (this.state.token !== null) {
      this.change({ token: null });
      return true;
    }
    if (this.data.facts.phase === "computing" && this.live) {
      this.source.stop();
      return true;
    }
    return false;
  }

  // ------------------------------------------------------------------------- answers

  private find(text: string): Promise<Found> {
    if (this.data.hasTexts) return Promise.resolve(this.data.search(text, 50));
    return this.source.search(text).then((found) => {
      this.data.putTexts(found.rows, found.texts);
      return found;
    });
  }

  private readonly wanted = new Set<number>();

  /** Asks for texts that are not here yet; those of a moment go in one message. */
  private needTexts(rows: readonly number[]): void {
    const missing = rows.filter((row) => this.data.text(row) === null);
    if (missing.length === 0 || !this.live) return;
    const first = this.wanted.size === 0;
    for (const row of missing) this.wanted.add(row);
    if (!first) return;
    this.cleanup.later(20, () => {
      const now = [...this.wanted];
      this.wanted.clear();
      this.source.texts(now).then(
        () => {
          if (this.plate.tip.shown) this.plate.showTip();
          this.frame.ask();
        },
        () => undefined,
      );
    });
  }

  /** Reads the locked token, where that has not been done. */
  private open(): void {
    const row = this.data.rowOf(this.state.token);
    this.why = "";
    if (row === null || this.data.aboutOf(row) !== null || this.asked === row) return;
    if (!this.live) {
      this.why = `The neighbours of this token need a kernel: run the cell again`;
      return;
    }
    this.asked = row;
    const done = (why: string) => {
      if (this.asked === row) this.asked = null;
      if (this.data.rowOf(this.state.token) === row) this.why = why;
      this.needTexts([row]);
      this.frame.ask();
    };
    this.source.token(row).then(
      () => done(""),
      (e: unknown) =>
        done(
          e instanceof Unavailable && e.why === "no-kernel"
            ? "The neighbours of this token need a kernel: run the cell again"
            : `The neighbours could not be read. ${e instanceof Error ? e.message : e}`,
        ),
    );
  }

  private get column(): Column | null {
    return this.data.column(this.state.color);
  }

  // ---------------------------------------------------------------------------- words

  private nameOf(row: number): string {
    const id = this.data.idOf(row);
    return this.data.text(row) ?? (this.data.facts.texts ? `text ${id}` : `token ${id}`);
  }

  private details(row: number): string[] {
    const { data, column, state } = this;
    const out: string[] = [];
    const group = data.labels.length > 0 ? data.group(data.labels[row]!) : null;
    if (group) out.push(group.name);
    const { path } = data.facts;
    if (path)
      out.push(`token ${row % path.tokens}, after layer ${path.layers[Math.floor(row / path.tokens)]}`);
    if (state.color !== "cluster" && column) {
      const facts = data.facts.columns.find((c) => c.name === state.color);
      const value =
        column.kind === "name"
          ? (column.names[column.values[row]!] ?? "")
          : Number.isFinite(column.values[row]!)
            ? endWords(column.values[row]!, state.color === "drift")
            : "no value";
      out.push(`${facts?.label.toLowerCase() ?? state.color} ${value}`);
    }
    const locked = data.rowOf(state.token);
    const about = locked === null ? null : data.aboutOf(locked);
    const at = about?.rows.indexOf(row) ?? -1;
    if (about && at >= 0) out.push(`cosine ${weight(about.cosines[at]!)} to ${about.text}`);
    return out;
  }

  private tipWords(row: number): (Node | string)[] {
    const details = this.details(row);
    return [
      h("bdi", { class: "lt-mono" }, h("b", {}, this.nameOf(row))),
      h("span", { class: "lt-quiet" }, ` ${this.data.idOf(row)}`),
      ...details.map((d) => h("div", { class: "lt-quiet" }, d)),
    ];
  }

  private rowWords(row: number): string {
    return [this.nameOf(row), ...this.details(row)].join(", ");
  }

  private provenanceLine(): string {
    const { facts } = this.data;
    if (this.live) return facts.provenance;
    return `${facts.provenance} \u00b7 ${facts.saved ? `saved ${facts.saved}, ` : ""}not live`;
  }

  // --------------------------------------------------------------------------- drawing

  private get ratio(): number {
    return Math.max(1, Math.min(2, window.devicePixelRatio || 1));
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

  /** Colours of points, made anew only where something that they depend on has changed. */
  private styled(selected: readonly number[]): Style {
    const { data, state, isolated } = this;
    const cluster = state.color === "cluster";
    const column = cluster ? null : this.column;
    const key = [
      data.positions,
      data.labels.buffer,
      data.facts.clusters,
      column,
      cluster,
      isolated,
      state.tokens,
    ];
    if (this.made && key.every((k, i) => k === this.madeOf[i])) return this.made;
    this.madeOf = key;
    this.made = style(data, column, cluster, isolated, new Set(selected));
    return this.made;
  }

  /** Brings everything on the screen to the present data and state. */
  private render(): void {
    if (this.width === 0) return;
    const { data, state, theme, width } = this;
    const { facts } = data;
    const size = modeOf(width);
    for (const m of ["wide", "middle", "narrow"]) this.root.classList.toggle(`lt-${m}`, m === size);
    this.title.replaceChildren(h("b", {}, facts.title), h("span", {}, facts.subtitle));
    this.provenance.classList.toggle("lt-stale", !this.live);
    this.provenance.replaceChildren(
      h("span", { class: "lt-dot", "aria-hidden": "true" }),
      this.provenanceLine(),
    );
    this.projection.show(state.projection);
    this.colour.show(state.color);
    this.side.element.hidden = data.moved === null;
    this.side.show(data.second ? "b" : "a");
    this.searchBox.show(state.search, this.live || data.hasTexts, `Searching ${NEED}`);
    this.renderProgress();
    const side = size === "wide" ? PANEL : width;
    const plate = size === "wide" ? width - PANEL - GAP : width;
    const tall = Math.round(Math.min(plate * TALL, size === "wide" ? 640 : 0.8 * plate));
    const locked = data.rowOf(state.token);
    const about = locked === null ? null : data.aboutOf(locked);
    const selected = this.selected();
    const drift = state.color === "drift" && facts.drift !== null;
    const column = state.color === "cluster" ? null : this.column;
    this.plate.element.parentElement!.style.width = `${plate}px`;
    this.plate.resize(plate, tall, this.ratio);
    this.plate.show(
      data,
      this.styled(selected),
      {
        locked,
        near: about && !drift ? about.rows : [],
        ringed: drift ? facts.drift!.movers.slice(0, 6).map((m) => m.row) : [],
        isolated: state.color === "cluster" ? this.isolated : null,
        hues: state.color === "cluster",
      },
      theme,
    );
    this.plate.advice.textContent = this.advice(size === "narrow");
    this.plate.label = `${facts.subtitle}, ${facts.provenance}. ${this.plate.advice.textContent}`;
    const columnFacts = facts.columns.find((c) => c.name === state.color) ?? null;
    const missing = this.live
      ? state.color === "drift" && facts.phase === "computing"
        ? "Drift is being computed\u2026"
        : `reading ${columnFacts?.label.toLowerCase() ?? state.color}\u2026`
      : `This colour ${NEED}`;
    this.legend.show(data, columnFacts, column, this.isolated, theme, missing);
    const notes = [
      facts.note,
      facts.unplaced > 0 ? `${plural(facts.unplaced, facts.texts ? "text" : "token")} not placed` : "",
    ];
    this.note.textContent = notes.filter(Boolean).join(" \u00b7 ");
    this.note.hidden = this.note.textContent === "";
    this.panel.show({
      ...{ data, locked, about, selected, drift, theme },
      ...{ why: this.why, network: state.network, live: this.live },
      width: size === "narrow" ? plate : (plate - GAP) / 2,
    });
    this.vector.show(about, facts.drift?.label ?? null, theme, Math.min(side, 420));
  }

  private advice(narrow: boolean): string {
    const { trustworthiness: trust, neighbours_kept: kept, quality_rows: rows, unplaced } = this.data.facts;
    if (rows === 0) return "too few points to measure how far to trust the picture";
    if (trust === null || rows === null)
      return "trustworthiness not measured yet: trust the list for distances";
    // What was read off a sample says so, wherever it stands.
    const estimated = rows < this.data.facts.n_points - unplaced;
    if (narrow)
      return `trustworthiness ${trust.toFixed(2)}${estimated ? `, estimated from ${count(rows)}` : ""}`;
    const source = estimated ? ` (estimated from ${count(rows)} tokens)` : "";
    const share =
      kept === null || this.width < 1050 ? "" : `, ${(100 * kept).toFixed(0)}\u202f% of neighbours kept`;
    return `trustworthiness ${trust.toFixed(2)}${share}${source}: trust the list for distances`;
  }

  private renderProgress(): void {
    const { facts } = this.data;
    const { phase, doing, done, total } = facts;
    const shown = this.live && phase !== "done" && !(phase === "computing" && doing === "trustworthiness");
    this.progress.hidden = !shown;
    if (!shown) return;
    const picture = facts.method === "pca" ? "PCA is shown meanwhile" : "";
    const words = {
      computing: `${doing}${total > 0 ? `, step ${count(done)} of ${count(total)}` : ""}${picture && doing === "UMAP" ? ` \u00b7 ${picture}` : ""}`,
      stopped: `${doing} was stopped. ${facts.method === "pca" ? "PCA stays." : ""}`,
      error: `${doing} could not be computed. The notebook is fine. ${facts.error}`,
      done: "",
    }[phase];
    this.progressWords.textContent = words;
    this.progress.classList.toggle("lt-emb-bad", phase === "error");
    this.progressBar.style.width = total > 0 ? `${(100 * done) / total}%` : "0";
    this.progressBar.parentElement!.hidden = phase !== "computing";
    this.stopButton.textContent = phase === "computing" ? "Stop" : "Try again";
  }

  private footer(): HTMLElement {
    const save = h(
      "button",
      { type: "button", class: "lt-action", title: "Download this view as PNG" },
      "PNG",
    );
    this.cleanup.on(save, "click", () => this.save());
    const copy = h(
      "button",
      { type: "button", class: "lt-action", title: "Copy the selected ids" },
      "selection \u2192 clipboard",
    );
    this.cleanup.on(copy, "click", async () => {
      const ids = this.state.tokens.length > 0 ? this.state.tokens : [this.state.token];
      const known = ids.filter((id) => id !== null);
      if (await copyText(JSON.stringify(known))) this.announcer.say(`${plural(known.length, "id")} copied`);
    });
    return h(
      "footer",
      { class: "lt-footer" },
      h(
        "span",
        { class: "lt-quiet lt-emb-hints" },
        "Drag orbits \u00b7 right drag moves \u00b7 a click, then the wheel zooms \u00b7 ",
        keyHint("\u21e7", "drag lassos, Ctrl adds, Alt removes"),
        " \u00b7 ",
        keyHint("R", "resets the camera"),
      ),
      h("span", { class: "lt-actions" }, save, copy),
    );
  }

  private async save(): Promise<void> {
    const { facts } = this.data;
    const part = {
      heading: ["", ""] as const,
      canvas: this.plate.picture(),
      boxes: [],
      under: this.plate.advice.textContent ?? "",
      notes: [],
      ramp: null,
    };
    const picture = compose(facts.title, facts.subtitle, this.provenanceLine(), [part], this.theme);
    download(`embedding-${(facts.model || "model").replace(/[^\w.-]+/g, "_")}.png`, await toPng(picture, 2));
    this.announcer.say("PNG saved");
  }

  // -------------------------------------------------------------------------- keyboard

  private key(event: KeyboardEvent): void {
    const path = event.composedPath();
    if (!path.includes(this.root) || event.isComposing) return;
    const target = path[0] as HTMLElement;
    const region = target.closest?.("[data-region]")?.getAttribute("data-region") ?? "";
    const typing = target instanceof HTMLInputElement;
    let used = false;
    if (region === "search") used = this.searchBox.key(event);
    else if (region === "space") used = this.plate.key(event);
    else used = this.panel.list(region)?.key(event) ?? false;
    if (!used && event.key === "Escape" && !typing) used = this.free();
    const find = (event.ctrlKey || event.metaKey) && event.key.toLowerCase() === "f";
    if (!used && (find || (event.key === "/" && !typing))) {
      this.searchBox.input.focus();
      this.searchBox.input.select();
      used = true;
    }
    if (used) event.preventDefault();
    const native = target instanceof HTMLButtonElement && (event.key === "Enter" || event.key === " ");
    const select =
      target instanceof HTMLSelectElement && event.key !== "Tab" && !event.ctrlKey && !event.metaKey;
    if (used || native || select || (typing && event.key !== "Tab")) event.stopPropagation();
    if (typing && event.key === "Escape" && !used) this.plate.focusable.focus({ preventScroll: true });
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
}
