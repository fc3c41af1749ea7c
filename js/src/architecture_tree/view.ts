// ArchitectureTree's view: a map of all bytes beside the tree of all tensors; with two files A, B and their difference.
// In: TreeData of one or two files, a state, a source. Out: DOM in `root`, and changes of the state. Knows no Jupyter.
import { keyHint, Segmented } from "../attention_grid/controls";
import base from "../attention_grid/style.css";
import { Announcer, Cleanup, copyText, download, Floating, Frame, h, Timer } from "../shared/dom";
import { count, plural } from "../shared/format";
import { applyTheme, sameTheme, type Theme, type ThemeChoice, watchTheme } from "../shared/theme";
import { BothView, WORDS } from "./both";
import type { Overlay } from "./colours";
import { deltaWords } from "./compare";
import type { Facts, TreeData } from "./data";
import { Metadata, NodeDetail, textureWords, typeBar, type Values } from "./detail";
import { GraphPanel } from "./graph";
import type { GraphData } from "./graph_data";
import { type Column, columnsOf, type Layout, layoutMap } from "./layout";
import { ByteMap, lockedRange, type MapEvents } from "./map";
import { MemoryPanel, type Plan, type Wish } from "./memory";
import { overlaysOf, sequentialLegend } from "./overlays";
import { compose, type Part, toPng, toSvg } from "./picture";
import style from "./style.css";
import { ROW, TreeTable } from "./table";
import type { Statistics } from "./values";
import { blockWords, Roles, sideName, spoken, tip, totals } from "./words";

/** The shared state: the public traits. */
export interface State {
  readonly node: string;
  readonly layer: number | null;
  readonly head: number | null;
  readonly overlay: string;
  readonly search: string;
  readonly theme: ThemeChoice;
}

/** Who hears what the user does, and gives what is measured on demand; what does not come rejects with `Unavailable`. */
export interface Source {
  change(patch: Partial<State>): void;
  /** Runs a prompt; resolves when its graph has come. */
  graph(): Promise<void>;
  /** Compares the weights of both files; resolves when the errors have come. */
  errors(): Promise<void>;
  values(side: number, name: string): Promise<Statistics>;
  /** Sends the tree to the user's Graphistry account; resolves with the address of the picture. */
  upload(): Promise<string>;
  /** Plans the memory; resolves when the plan has come. */
  plan(wish: Wish): Promise<void>;
}

/** Everything that is shown. */
export interface Models {
  readonly facts: Facts;
  readonly a: TreeData;
  readonly b: TreeData | null;
  /** For each leaf of A the leaf of B with the same tensor, -1 for none. */
  readonly pairs: Int32Array;
  /** Values of the overlays that Python gave, for the leaves of A. */
  readonly overlays: readonly Float32Array[];
  readonly graph: GraphData | null;
  /** RMSE, relative error and cosine per leaf of A; empty where nobody asked. */
  readonly errors: readonly Float32Array[];
  readonly plan: Plan | null;
}

type Shown = "a" | "both" | "b";

const NARROW = 600;
const WIDE = 900;
/** Heights (px) of the map, of one of three maps, and of the tree. */
const [MAP, SMALL, TREE] = [338, 140, 21 * ROW];
let views = 0;

export class ArchitectureTreeView {
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
  private readonly controls = h("div", { class: "lt-controls" });
  private colourBy: Segmented<string>;
  private readonly sides: Segmented<Shown>;
  private readonly input = h("input", {
    type: "search",
    class: "lt-at-input",
    placeholder: "tensor, type, shape",
    "aria-label": "Search tensors",
  });
  private readonly found = h("span", { class: "lt-at-found", "aria-hidden": "true" });
  private readonly single = h("div", { class: "lt-at-single" });
  private readonly table: TreeTable;
  private readonly tied = h("p", { class: "lt-quiet lt-at-tied" });
  private readonly right = h("div", { class: "lt-at-right" });
  private readonly mapTitle = h("h3", {});
  private readonly legend = h("div", {});
  private readonly types = h("div", {});
  private readonly notices = h("div", { class: "lt-at-notices" });
  private readonly both: BothView;
  private readonly detail: NodeDetail;
  private readonly graph: GraphPanel;
  private graphState = "";
  private readonly values = new Map<string, Statistics | "asked" | { problem: string }>();
  private wantsValues = false;
  private readonly memory: MemoryPanel;
  private readonly metadata: Metadata;
  private readonly map: ByteMap;
  private readonly tip = new Floating("lt-tip lt-at-tip");
  private readonly delay: Timer;
  private readonly typing: Timer;
  private readonly frame: Frame;
  private theme: Theme;
  private width = 0;
  private live = true;
  private shown: Shown;
  private isolated: string | null = null;
  private hits: (Int32Array | null)[] = [null, null];
  private at = -1;
  private chosen = -1;
  private layouts = new Map<string, Layout>();
  private readonly columns = new Map<TreeData, Column[]>();
  private readonly roles = new Map<TreeData, Roles>();

  constructor(
    private readonly root: HTMLElement,
    private readonly source: Source,
    private models: Models,
    private state: State,
  ) {
    const { cleanup } = this;
    root.classList.add("lt-root", "lt-at");
    this.shown = models.b ? "both" : "a";
    this.delay = new Timer(cleanup);
    this.typing = new Timer(cleanup);
    this.colourBy = this.makeColours();
    this.sides = new Segmented<Shown>(
      "Show",
      [
        ["a", "A", "The first file alone"],
        ["both", "A | B", "Both files and their difference"],
        ["b", "B", "The second file alone"],
      ],
      cleanup,
      (shown) => this.showSide(shown),
    );
    const unique = `at-${++views}`;
    const map = (name: string) => new ByteMap(name, this.mapEvents(), cleanup, unique);
    this.map = map("Byte map");
    this.both = new BothView(map, {
      leaf: (leaf) => this.choose(this.models.a.leafNode[leaf]!, this.models.a),
      role: (role) => this.source.change({ search: this.state.search === role ? "" : role }),
      errors: () => this.source.errors(),
      again: () => this.frame.ask(),
    });
    this.table = new TreeTable(
      models.a,
      {
        choose: (node) => this.choose(node),
        hover: (node) => this.hoverNode(node),
        leave: () => this.map.hover(-1),
      },
      cleanup,
    );
    this.detail = new NodeDetail(
      (node) => this.choose(node),
      () => {
        this.wantsValues = true;
        this.frame.ask();
      },
    );
    this.graph = new GraphPanel(
      {
        layer: (layer) => this.chooseLayer(layer),
        leaf: (leaf) => this.choose(this.models.a.leafNode[leaf]!, this.models.a),
        run: () => this.runGraph(),
      },
      cleanup,
    );
    this.memory = new MemoryPanel((wish) => this.source.plan(wish), cleanup);
    this.metadata = new Metadata(cleanup);
    this.right.append(this.mapTitle, this.map.element, this.legend, this.types, this.notices);
    this.single.append(h("div", { class: "lt-at-left" }, this.table.element, this.tied), this.right);
    this.input.value = state.search;
    root.append(
      h("style", {}, base),
      h("style", {}, style),
      h("header", { class: "lt-header" }, this.title, this.provenance),
      this.controls,
      this.single,
      this.both.element,
      this.detail.element,
      this.graph.element,
      this.memory.element,
      this.metadata.element,
      this.makeFooter(),
      this.tip.element,
      this.announcer.element,
    );
    this.renderControls();
    cleanup.on(this.provenance, "click", () => this.copyDetails());
    cleanup.on(this.input, "input", () =>
      this.typing.start(60, () => this.source.change({ search: this.input.value })),
    );
    cleanup.on(window, "scroll", () => this.hideTip(), { capture: true, passive: true });
    // Before Lumino's document-level listener sees it, and only keys that the widget uses.
    cleanup.on<KeyboardEvent>(window, "keydown", (e) => this.key(e), { capture: true });
    this.frame = new Frame(cleanup, () => this.render());
    this.theme = applyTheme(root, state.theme);
    cleanup.add(watchTheme(root, () => this.retheme()));
    const observer = new ResizeObserver(() => this.resize());
    observer.observe(root);
    cleanup.add(() => observer.disconnect());
    this.search();
    this.resolve(null);
    this.resize();
  }

  /** Other models. */
  setModels(models: Models): void {
    this.models = models;
    this.shown = models.b ? "both" : "a";
    this.layouts.clear();
    this.columns.clear();
    this.roles.clear();
    this.table.setData(models.a);
    this.colourBy = this.makeColours();
    this.renderControls();
    this.search();
    this.resolve(null);
    this.frame.ask();
  }

  /** Something was measured: the models are the same. */
  setMeasured(models: Models): void {
    this.models = models;
    this.graphState = "";
    this.colourBy = this.makeColours();
    this.renderControls();
    this.frame.ask();
  }

  /** The shared state changed, here or elsewhere. */
  setState(state: State): void {
    const before = this.state;
    this.state = state;
    if (state.theme !== before.theme) this.theme = applyTheme(this.root, state.theme);
    if (state.search !== before.search) {
      if (this.input.value !== state.search) this.input.value = state.search;
      this.search();
    }
    if (state.node !== before.node || state.layer !== before.layer || state.head !== before.head)
      this.resolve(before);
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
    this.cleanup.run();
    this.root.replaceChildren();
    this.root.classList.remove("lt-root", "lt-at", "lt-dark", "lt-wide", "lt-middle", "lt-narrow");
    this.root.removeAttribute("style");
  }

  // ------------------------------------------------------------------------- what is shown

  /** The model of the tree: A, unless B alone is shown. */
  private get data(): TreeData {
    return this.shown === "b" && this.models.b ? this.models.b : this.models.a;
  }

  private columnsOf(data: TreeData): Column[] {
    let own = this.columns.get(data);
    if (!own) {
      own = columnsOf(data);
      this.columns.set(data, own);
    }
    return own;
  }

  private rolesOf(data: TreeData): Roles {
    let own = this.roles.get(data);
    if (!own) {
      own = new Roles(data);
      this.roles.set(data, own);
    }
    return own;
  }

  private get overlays(): Overlay[] {
    return overlaysOf(this.models, this.data, textureWords(this.data), this.shown === "a");
  }

  private get overlay(): Overlay {
    const all = this.overlays;
    return all.find((own) => own.name === this.state.overlay) ?? all[0]!;
  }

  /**
   * Which node the state means. A node that was chosen counts, whatever layer is still there: its own comes with it or
   * after it. A layer or head that was chosen elsewhere is a node here, unless the node lies in it.
   */
  private resolve(before: State | null): void {
    const { layer, head, node } = this.state;
    const { a } = this.models;
    const named = a.find(node);
    this.chosen = named;
    if (before ? before.node !== node : named >= 0) return;
    const own = named < 0 ? [null, null] : [num(a.layer[named]!), num(a.head[named]!)];
    if (own[0] === layer && own[1] === head) return;
    const place = a.place(layer, head);
    this.chosen = place >= 0 ? place : a.place(layer, null);
    const id = a.id(this.chosen);
    if (id !== node) this.source.change({ node: id });
  }

  private inData(node: number): number {
    return this.data === this.models.a ? node : this.data.find(this.models.a.id(node));
  }

  private search(): void {
    const { a, b } = this.models;
    this.hits = [a.search(this.state.search), b?.search(this.state.search) ?? null];
    this.at = -1;
    const [own] = this.hits;
    if (own) this.announcer.say(`${plural(own.length, "tensor")} found`);
  }

  /** Which leaves keep their colour: all (null), those found, or those of the isolated role. */
  private kept(data: TreeData): Uint8Array | null {
    const own = this.hits[data.side];
    if (!own && this.isolated === null) return null;
    const kept = new Uint8Array(data.leaves);
    if (own) for (const leaf of own) kept[leaf] = 1;
    else for (let leaf = 0; leaf < data.leaves; leaf++) if (data.role(leaf) === this.isolated) kept[leaf] = 1;
    return kept;
  }

  // ---------------------------------------------------------------------------- rendering

  private get ratio(): number {
    return window.devicePixelRatio || 1;
  }

  private retheme(): void {
    const theme = applyTheme(this.root, this.state.theme);
    if (sameTheme(theme, this.theme)) return;
    this.theme = theme;
    this.frame.ask();
  }

  private resize(): void {
    const width = Math.floor(this.root.clientWidth) - 16;
    if (width <= 0 || width === this.width) return;
    this.width = width;
    const name = width >= WIDE ? "lt-wide" : width >= NARROW ? "lt-middle" : "lt-narrow";
    for (const one of ["lt-wide", "lt-middle", "lt-narrow"]) this.root.classList.toggle(one, one === name);
    this.hideTip();
    this.frame.ask();
  }

  private get wide(): boolean {
    return this.width >= WIDE;
  }

  private render(): void {
    if (this.width <= 0) return;
    this.renderHeader();
    const both = this.shown === "both";
    this.single.hidden = both;
    this.both.element.hidden = !both;
    this.colourBy.show(this.overlay.name);
    this.sides.show(this.shown);
    const own = this.hits[this.data.side];
    this.found.textContent = own
      ? this.at >= 0
        ? `${count(this.at + 1)} of ${count(own.length)}`
        : `${count(own.length)} found`
      : "";
    if (both) this.renderBoth();
    else this.renderSingle();
    const { data } = this;
    const node = this.inData(this.chosen);
    this.detail.show(data, node, this.rolesOf(data), this.theme, this.valuesOf(data, node));
    this.renderGraph();
    this.memory.element.hidden = this.shown !== "a";
    this.memory.show(this.models.plan, this.models.facts.runs || (this.live ? "" : "needs a kernel"));
    this.metadata.show(data.sideFacts);
  }

  private renderGraph(): void {
    const { graph, a, facts } = this.models;
    this.graph.element.hidden = this.shown !== "a";
    if (this.graph.element.hidden) return;
    if (!graph) {
      const why = facts.runs || (this.live ? null : "needs a kernel");
      this.graph.showOffer(why, this.graphState);
      return;
    }
    const leaf = this.chosen < 0 ? -1 : a.leafOf[this.chosen]!;
    this.graph.show(
      graph,
      a,
      this.chosen < 0 ? null : num(a.layer[this.chosen]!),
      leaf,
      this.theme,
      this.width,
      this.ratio,
    );
  }

  private runGraph(): void {
    this.graphState = "running a prompt in llama.cpp, then timing every operation\u2026";
    this.frame.ask();
    this.source.graph().catch((error: Error) => {
      this.graphState = "";
      this.announcer.say(error.message);
      this.graph.showOffer(error.message, "");
    });
  }

  /** What is known of the values of a tensor; asks for them where they are wanted. */
  private valuesOf(data: TreeData, node: number): Values {
    const leaf = node < 0 ? -1 : data.leafOf[node]!;
    if (leaf < 0 || data.leafType[leaf]! < 0) return "ask";
    const name = data.fullName(leaf);
    const key = `${data.side} ${name}`;
    const known = this.values.get(key);
    if (known) return known;
    if (!data.sideFacts.complete) return { problem: "only the header of this file is here" };
    if (!this.live) return { problem: "needs a kernel" };
    if (!this.wantsValues) return "ask";
    this.values.set(key, "asked");
    this.source
      .values(data.side, name)
      .then(
        (own) => this.values.set(key, own),
        (error: Error) => this.values.set(key, { problem: error.message }),
      )
      .finally(() => this.frame.ask());
    return "asked";
  }

  private renderHeader(): void {
    const { facts } = this.models;
    this.title.replaceChildren(h("b", {}, facts.title), h("span", {}, h("bdi", {}, this.subtitle())));
    this.root.classList.toggle("lt-stale", !this.live);
    this.provenanceText.textContent = this.provenanceLine();
    this.provenance.title = `Copy the details\n${this.detailsText()}`;
  }

  private subtitle(): string {
    const { facts, b } = this.models;
    if (this.shown !== "both" || !b) return `${sideName(facts, this.data.side)} \u00b7 ${totals(this.data)}`;
    const [one, two] = [facts.sides[0]!, facts.sides[1]!];
    if (one.model === two.model && one.quant_type && two.quant_type)
      return `${one.model} \u00b7 ${one.quant_type} against ${two.quant_type}`;
    return `${sideName(facts, 0)} against ${sideName(facts, 1)}`;
  }

  private provenanceLine(): string {
    const { facts } = this.models;
    const own = this.shown === "a" ? facts.overlays.find((o) => o.name === this.overlay.name) : undefined;
    const line = own ? `${own.label}: ${own.source}` : facts.provenance;
    return this.live ? line : `${line} \u00b7 saved ${facts.saved ?? ""}, not live`;
  }

  private detailsText(): string {
    const lines = Object.entries(this.models.facts.details).map(([k, v]) => `${k}: ${v}`);
    return [this.provenanceLine(), ...lines].join("\n");
  }

  private async copyDetails(): Promise<void> {
    const done = await copyText(this.detailsText());
    this.provenanceText.textContent = done ? "Copied" : "Copying is not allowed here";
    this.announcer.say(this.provenanceText.textContent);
    this.cleanup.later(1200, () => this.renderHeader());
  }

  private makeColours(): Segmented<string> {
    const titles: Record<string, string> = {
      type: "Colour = bits of the quant type, texture = its family",
      bits: "Bits per weight, from the bytes of the tensor",
      bytes: "Bytes of the tensor",
    };
    const words = new Map(this.models.facts.overlays.map((o) => [o.name, o.words]));
    const options = this.overlays.map(
      (o) => [o.name, o.label, titles[o.name] ?? words.get(o.name) ?? ""] as const,
    );
    return new Segmented<string>("Colour by", options, this.cleanup, (overlay) =>
      this.source.change({ overlay }),
    );
  }

  private renderControls(): void {
    const search = h("div", { class: "lt-at-search" }, this.input, this.found);
    const hints = h(
      "div",
      { class: "lt-hints", "aria-hidden": "true" },
      keyHint("/", "search"),
      keyHint("\u2192", "opens"),
      keyHint("Esc", "free"),
    );
    this.controls.replaceChildren(
      h("span", { class: "lt-quiet lt-at-label" }, "Colour by"),
      this.colourBy.element,
      ...(this.models.b ? [this.sides.element] : []),
      hints,
      search,
    );
  }

  private layoutOf(name: string, sides: readonly TreeData[], width: number, height: number): Layout {
    const key = `${name} ${width} ${height}`;
    let own = this.layouts.get(key);
    if (!own) {
      for (const other of [...this.layouts.keys()])
        if (other.startsWith(`${name} `)) this.layouts.delete(other);
      own = layoutMap(
        sides.map((side) => this.columnsOf(side)),
        width,
        height,
      );
      this.layouts.set(key, own);
    }
    return own;
  }

  private mapWidth(): number {
    return this.wide ? Math.floor(this.width * (this.width < 1000 ? 0.5 : 0.55)) : this.width;
  }

  private renderSingle(): void {
    const { data, overlay, theme } = this;
    const width = this.mapWidth();
    const layout = this.layoutOf(`single ${data.side}`, [data], width, this.wide ? MAP : 220);
    const kept = this.kept(data);
    const { map } = this;
    this.right.style.width = `${width}px`;
    map.show(data, this.columnsOf(data), layout, overlay, theme, kept, this.ratio, (leaf) =>
      blockWords(data, leaf),
    );
    this.mapTitle.replaceChildren(h("b", {}, "Byte map"), "area = bytes, left to right = through the model");
    map.lock(lockedRange(data, this.inData(this.chosen)));
    this.legend.replaceChildren(...(overlay.values ? [sequentialLegend(overlay, theme)] : []));
    this.types.replaceChildren(
      h("h3", {}, h("b", {}, "Bytes by quant type"), textureWords(data)),
      typeBar(data, theme, width),
    );
    const { notices, tied } = data.sideFacts;
    this.tied.hidden = !tied;
    this.tied.textContent = "output: tied to token_embd, stored once";
    this.notices.replaceChildren(
      ...notices
        .filter(([strong]) => !(tied && strong.startsWith("Output is tied")))
        .map(([strong, text]) => h("p", { class: "lt-at-notice" }, h("b", {}, strong), ` ${text}`)),
    );
    this.table.show(theme, this.wide ? TREE : 12 * ROW, kept);
    this.table.choose(this.inData(this.chosen));
    map.canvas.setAttribute(
      "aria-label",
      `Byte map of ${sideName(this.models.facts, data.side)}: ${totals(data)}`,
    );
  }

  private renderBoth(): void {
    const { models, theme, overlay } = this;
    if (!models.b) return;
    const width = this.wide ? this.width - WORDS : this.width;
    const layout = this.layoutOf("both", [models.a, models.b], width, SMALL);
    this.both.show({
      models: { ...models, b: models.b },
      layout,
      overlay,
      theme,
      wide: this.wide,
      ratio: this.ratio,
      live: this.live,
      chosen: this.chosen,
      columns: (data) => this.columnsOf(data),
      kept: (data) => this.kept(data),
    });
  }

  private showSide(shown: Shown): void {
    if (shown === this.shown) return;
    this.shown = shown;
    if (shown !== "both") this.table.setData(this.data);
    this.colourBy = this.makeColours();
    this.renderControls();
    this.frame.ask();
  }

  // ----------------------------------------------------------------------------- choosing

  private mapEvents(): MapEvents {
    return {
      hover: (leaf, map) => this.hoverLeaf(leaf, map),
      leave: () => this.hideTip(),
      choose: (leaf, map) => this.choose(map.data!.leafNode[leaf]!, map.data!),
      isolate: (leaf) => this.isolate(leaf),
      clear: () => void this.free(),
      say: (leaf, map) => spoken(map.data!, leaf),
    };
  }

  private choose(node: number, data = this.data): void {
    const { a } = this.models;
    const own = data === a ? node : a.find(data.id(node));
    if (own < 0) {
      this.announcer.say("only in B");
      return;
    }
    this.source.change({ node: a.id(own), layer: num(a.layer[own]!), head: num(a.head[own]!) });
    this.announcer.say(`${a.shortName(own)} chosen`);
  }

  private isolate(leaf: number): void {
    const role = this.data.role(leaf);
    this.isolated = this.isolated === role ? null : role;
    this.announcer.say(this.isolated === null ? "All tensors are shown" : `Only ${role} is shown`);
    this.frame.ask();
  }

  /** Frees the innermost thing; true when there was one. */
  private free(): boolean {
    if (this.tip.shown) {
      this.hideTip();
      return true;
    }
    if (this.isolated !== null) {
      this.isolated = null;
      this.frame.ask();
      return true;
    }
    if (this.state.search !== "" || this.input.value !== "") {
      this.input.value = "";
      this.source.change({ search: "" });
      return true;
    }
    if (this.chosen < 0) return false;
    this.source.change({ node: "", layer: null, head: null });
    this.announcer.say("Nothing chosen");
    return true;
  }

  /** A layer of the graph; what is outside of layers is only shown there. */
  private chooseLayer(layer: number): void {
    const node = layer < 0 ? -1 : this.models.a.place(layer, null);
    if (node >= 0) this.choose(node, this.models.a);
    else this.source.change({ node: "", layer: null, head: null });
    this.frame.ask();
  }

  private hideTip(): void {
    this.delay.stop();
    this.tip.hide();
  }

  private hoverLeaf(leaf: number, map: ByteMap): void {
    const data = map.data!;
    const show = () => {
      const lines = tip(data, this.rolesOf(data), leaf, this.overlay, this.theme);
      if (map === this.both.third && this.models.b)
        lines.push(h("div", {}, h("b", {}, deltaWords(data, this.models.b, this.models.pairs, leaf))));
      this.tip.element.replaceChildren(...lines);
      this.tip.show(map.screenBox(leaf), [], 10);
    };
    if (this.tip.shown) show();
    else this.delay.start(80, show);
  }

  private hoverNode(node: number): void {
    const leaf = this.data.leafOf[node]!;
    this.map.hover(leaf);
  }

  /** Chooses the next of what was found. */
  private next(step: number): void {
    const own = this.hits[this.data.side];
    if (!own || own.length === 0) return;
    this.at = (this.at + step + own.length) % own.length;
    if (step < 0 && this.at < 0) this.at = own.length - 1;
    this.choose(this.data.leafNode[own[this.at]!]!);
    this.frame.ask();
  }

  // ----------------------------------------------------------------------------- keyboard

  private key(event: KeyboardEvent): void {
    const path = event.composedPath();
    if (!path.includes(this.root) || event.isComposing) return;
    const target = path[0] as HTMLElement;
    const plain = !event.altKey && !event.ctrlKey && !event.metaKey;
    const typing = target instanceof HTMLInputElement;
    const used =
      (event.key === "Escape" && this.escape(target)) ||
      (this.opensSearch(event, typing) && this.focusSearch()) ||
      (plain && target === this.input && this.inputKey(event)) ||
      (plain && event.key === "Enter" && this.memory.enter(target)) ||
      (plain && target === this.table.grid && this.table.key(event)) ||
      (plain && [this.map, ...this.both.maps].some((map) => map.twin.element === target && map.key(event)));
    const native = target instanceof HTMLButtonElement && (event.key === "Enter" || event.key === " ");
    if (used) event.preventDefault();
    if (used || native || typing || target instanceof HTMLSelectElement) event.stopPropagation();
    if (!used && target.getAttribute("role") === "radio") this.stepRadio(target, event);
  }

  private opensSearch(event: KeyboardEvent, typing: boolean): boolean {
    if (event.altKey) return false;
    if (event.ctrlKey || event.metaKey) return event.key.toLowerCase() === "f" && !event.shiftKey;
    return event.key === "/" && !typing;
  }

  private focusSearch(): boolean {
    this.input.focus();
    this.input.select();
    return true;
  }

  private escape(target: HTMLElement): boolean {
    if (target === this.input && this.input.value === "") {
      (this.shown === "both" ? this.both.maps[0].twin.element : this.table.grid).focus({
        preventScroll: true,
      });
      return true;
    }
    return this.free();
  }

  private inputKey(event: KeyboardEvent): boolean {
    if (event.key !== "Enter") return false;
    if (this.typing.running) {
      this.typing.stop();
      this.source.change({ search: this.input.value });
      this.cleanup.later(30, () => this.next(1));
      return true;
    }
    this.next(event.shiftKey ? -1 : 1);
    return true;
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

  // ----------------------------------------------------------------------------- pictures

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
        "A click locks a tensor and selects its layer in linked views; double click: the same tensor in all layers.",
      ),
      h("span", { class: "lt-actions" }, this.graphistry(), save("PNG"), save("SVG")),
    );
  }

  /** Sends a large tree to the account that the user has registered, when it is clicked and not before. */
  private graphistry(): HTMLElement | null {
    const host = this.models.facts.graphistry;
    if (!host) return null;
    const place = h("span", {});
    const b = h("button", { type: "button", class: "lt-action", title: `Upload this tree to ${host}` });
    b.textContent = "Graphistry";
    this.cleanup.on(b, "click", () => {
      b.disabled = true;
      b.textContent = "Sending \u2026";
      this.source.upload().then(
        (url) => {
          const link = h(
            "a",
            { class: "lt-action", target: "_blank", rel: "noopener noreferrer" },
            "Open in Graphistry",
          );
          if (/^https?:/.test(url)) link.setAttribute("href", url);
          place.replaceChildren(link);
        },
        (e: unknown) => {
          b.disabled = false;
          b.textContent = "Graphistry";
          b.title = e instanceof Error ? e.message : String(e);
          this.announcer.say(b.title);
        },
      );
    });
    place.append(b);
    return place;
  }

  private async save(kind: "PNG" | "SVG"): Promise<void> {
    const { facts } = this.models;
    const part = (heading: readonly [string, string], map: ByteMap): Part => ({
      heading,
      canvas: map.canvas,
      axis: map.labels,
      chosen: map.chosen,
    });
    const parts =
      this.shown === "both"
        ? [
            part(["A", `${sideName(facts, 0)} \u00b7 ${totals(this.models.a)}`], this.both.maps[0]),
            part(["B", `${sideName(facts, 1)} \u00b7 ${totals(this.models.b!)}`], this.both.maps[1]),
            part(
              ["B \u2212 A", "bits per weight, drawn on A\u2019s bytes: blue = B smaller, red = B larger"],
              this.both.third,
            ),
          ]
        : [part(["Byte map", "area = bytes, left to right = through the model"], this.map)];
    const types = this.shown === "both" ? null : this.data;
    const picture = compose(facts.title, this.subtitle(), this.provenanceLine(), parts, types, this.theme);
    const blob = kind === "PNG" ? await toPng(picture, Math.max(2, this.ratio)) : toSvg(picture);
    const model = sideName(facts, this.data.side).replace(/[^\w.-]+/g, "_");
    download(`architecture-${model}.${kind.toLowerCase()}`, blob);
    this.announcer.say(`${kind} saved`);
  }
}

const num = (value: number): number | null => (value < 0 ? null : value);
