// The locked layer: its table, the reading of one token, the token's way through the layers, one expert in the text.
// In: data, what is chosen, width. Out: DOM; which token, layer or expert the user chooses.

import { Twin } from "../attention_grid/twin";
import { css } from "../shared/colour";
import { Cleanup, Floating, h, setProps, Timer } from "../shared/dom";
import { count, running, weight } from "../shared/format";
import type { LayerFacts, StripData } from "./data";
import { type Look, paintWay, shade } from "./paint";
import { LOAD, layoutTable, paintTable, type Table, tableHit, WINDOW } from "./table";
import { choiceWords, entropyWords, layerWords, loadWords, tokenEntropy, tokenName } from "./words";

export interface DetailEvents {
  token(token: number): void;
  layer(layer: number): void;
  expert(expert: number | null): void;
  retry(): void;
}

export type Status = "loading" | "exact" | "no-kernel" | "error";

export interface DetailState extends Look {
  readonly width: number;
  readonly wide: boolean;
  readonly expert: number | null;
  readonly status: Status;
  readonly problem: string;
}

/** Tokens of the text that are put into the page at once. */
const TEXT = 600;

let views = 0;

export class DetailView {
  readonly element = h("section", { class: "lt-detail", hidden: true });
  readonly canvas = h("canvas", { role: "img" });
  private readonly cleanup = new Cleanup();
  private readonly heading = h("h3", {});
  private readonly plot = h("div", { class: "lt-es-plot" });
  private readonly ring = h("div", { class: "lt-ring lt-ring-hover", hidden: true });
  private readonly moves = h("div", { class: "lt-es-moves" });
  private readonly left: HTMLElement;
  private readonly notice = h("div", { class: "lt-notice", hidden: true });
  private readonly sentence = h("div", { class: "lt-sentence" });
  private readonly numbers = h("div", { class: "lt-es-numbers" });
  private readonly way = h("canvas", { role: "img" });
  private readonly wayTitle = h("h4", {});
  private readonly wayPlot = h("div", { class: "lt-es-plot" });
  private readonly textTitle = h("h4", {});
  private readonly text = h("div", { class: "lt-es-text", "data-region": "text" });
  private readonly reading: HTMLElement;
  private readonly tip = new Floating("lt-tip");
  /** Token and expert of the keyboard's cursor. */
  private cursor: [number, number] = [0, 0];
  private focused = false;
  private readonly twin = new Twin(
    "Tokens and experts of the layer",
    "table",
    (row, expert) => this.say(row, expert),
    `es-table-${++views}`,
  );
  private readonly delay: Timer;
  private table: Table | null = null;
  private geometry: ReturnType<typeof paintWay> | null = null;
  private data: StripData | null = null;
  private state: DetailState | null = null;
  private written = "";
  /** The sentence, for screen readers. */
  words = "";

  constructor(private readonly events: DetailEvents) {
    const { cleanup } = this;
    this.delay = new Timer(cleanup);
    this.plot.append(this.canvas, this.ring, this.twin.element);
    this.wayPlot.append(this.way);
    this.left = h("div", { class: "lt-left" }, this.heading, this.plot, this.moves);
    this.reading = h(
      "div",
      { class: "lt-right" },
      this.notice,
      this.sentence,
      this.numbers,
      h("div", {}, this.wayTitle, this.wayPlot),
      h("div", {}, this.textTitle, this.text),
    );
    this.element.append(this.left, this.reading, this.tip.element);
    cleanup.on<PointerEvent>(this.canvas, "pointermove", (e) => this.overTable(e));
    cleanup.on(this.canvas, "pointerleave", () => this.hideTip());
    cleanup.on<MouseEvent>(this.canvas, "click", (e) => this.clickTable(e));
    cleanup.on(this.twin.element, "focus", () => this.enter());
    cleanup.on(this.twin.element, "blur", () => this.leave());
    cleanup.on<PointerEvent>(this.way, "pointermove", (e) => this.overWay(e));
    cleanup.on(this.way, "pointerleave", () => this.hideTip());
    cleanup.on<MouseEvent>(this.way, "click", (e) => this.clickWay(e));
    cleanup.on<MouseEvent>(this.text, "click", (e) => this.clickText(e));
    cleanup.on(window, "scroll", () => this.hideTip(), { capture: true, passive: true });
    cleanup.add(() => this.tip.hide());
  }

  get previewing(): boolean {
    return this.tip.shown;
  }

  hideTip(): void {
    this.delay.stop();
    this.tip.hide();
    this.ring.hidden = true;
  }

  hide(): void {
    this.hideTip();
    this.element.hidden = true;
  }

  destroy(): void {
    this.cleanup.run();
  }

  show(data: StripData, layer: LayerFacts, state: DetailState): void {
    this.data = data;
    this.state = state;
    this.element.hidden = false;
    this.heading.replaceChildren(h("b", {}, `Layer ${layer.layer}`), layerWords(data, layer));
    const having = layer.used > 0;
    this.plot.hidden = this.moves.hidden = !having;
    this.notice.hidden = !having || state.status === "exact";
    this.notice.replaceChildren(...this.problem(state));
    if (having) this.showTable(data, layer, state);
    if (this.focused) this.showTwin();
    this.showSentence(data, layer, state);
    this.showNumbers(data, layer);
    this.showWay(data, state);
    this.showText(data, layer, state);
  }

  private problem(state: DetailState): (Node | string)[] {
    if (state.status === "loading") return ["Reading this layer \u2026"];
    if (state.status === "no-kernel")
      return ["Exact weights of this layer need a kernel: run the cell again. The overview above stays."];
    const retry = h("button", { type: "button", class: "lt-button" }, "Try again");
    retry.addEventListener("click", () => this.events.retry());
    return [`This layer did not come: ${state.problem}`, retry];
  }

  private showTable(data: StripData, layer: LayerFacts, state: DetailState): void {
    const room = state.wide ? Math.floor(state.width * 0.56) : state.width;
    this.table = layoutTable(data, state.token, room);
    paintTable(this.canvas, data, layer.layer, this.table, state);
    this.left.style.width = state.wide ? `${Math.max(this.table.width, 340)}px` : "";
    const { from, to } = this.table;
    this.canvas.setAttribute(
      "aria-label",
      `Layer ${layer.layer}: tokens ${from} to ${to - 1}, ${data.facts.n_experts} experts, ${layerWords(data, layer)}`,
    );
    this.moves.hidden = data.tokens <= WINDOW;
    if (this.moves.hidden) return;
    const go = (label: string, token: number, off: boolean) => {
      const b = h("button", { type: "button", class: "lt-button", disabled: off }, label);
      b.addEventListener("click", () => this.events.token(token));
      return b;
    };
    const last = data.tokens - 1;
    const half = WINDOW / 2;
    this.moves.replaceChildren(
      go("\u2191 earlier", Math.max(0, from - half), from === 0),
      go("\u2193 later", Math.min(last, to + half - 1), to === data.tokens),
      h(
        "span",
        { class: "lt-quiet" },
        `tokens ${count(from)}\u2013${count(to - 1)} of ${count(data.tokens)}`,
      ),
    );
  }

  private showSentence(data: StripData, layer: LayerFacts, state: DetailState): void {
    const { token } = state;
    const choices = token === null ? null : data.choices(layer.layer, token);
    if (token === null || layer.used === 0) {
      const hint =
        layer.used === 0 ? "All tokens go through the same MLP here." : "Click a token to read its experts.";
      this.sentence.replaceChildren(h("span", { class: "lt-quiet" }, hint));
      this.words = hint;
      return;
    }
    const name = h("span", { class: "lt-chip" }, tokenName(data, token));
    if (!choices || choices.length === 0) {
      const why = choices ? "was not computed in this layer (its logits were not asked for)" : "\u2026";
      this.sentence.replaceChildren(name, h("span", { class: "lt-verb" }, why));
      this.words = `${data.facts.tokens[token]} ${why}`;
      return;
    }
    const [first, ...rest] = choices;
    this.sentence.replaceChildren(
      name,
      h("span", { class: "lt-verb" }, "goes to"),
      h("span", { class: "lt-chip lt-chip-on" }, `E${first!.expert}`),
      h("span", { class: "lt-big" }, weight(first!.weight)),
      h(
        "span",
        { class: "lt-quiet" },
        rest.length > 0 ? `then ${choiceWords(rest)}` : "the only one per token",
      ),
    );
    this.words = `${data.facts.tokens[token]} goes to ${choiceWords(choices)} in layer ${layer.layer}`;
  }

  private showNumbers(data: StripData, layer: LayerFacts): void {
    this.numbers.hidden = layer.used === 0;
    if (layer.used === 0) return;
    const { token } = this.state!;
    const choices = token === null ? null : data.choices(layer.layer, token);
    const mean = entropyWords(layer.token_bits, layer.used);
    const rows: [string, string, string][] = [
      ["Entropy of the load", entropyWords(layer.load_bits, data.facts.n_experts), even(layer.evenness)],
      [
        "Entropy of a token's weights, mean",
        layer.used > 1 ? mean : "\u2013",
        layer.used > 1 ? "" : "no choice",
      ],
    ];
    if (choices && choices.length > 1)
      rows.push(["Entropy of this token's weights", entropyWords(tokenEntropy(choices), layer.used), ""]);
    this.numbers.replaceChildren(
      ...rows.flatMap(([name, value, more]) => [
        h("span", { class: "lt-among-name" }, name),
        h("span", { class: "lt-number" }, value),
        h("span", { class: "lt-quiet" }, more),
      ]),
    );
  }

  private showWay(data: StripData, state: DetailState): void {
    const holder = this.wayPlot.parentElement!;
    holder.hidden = state.token === null;
    if (state.token === null) return;
    this.wayTitle.replaceChildren(
      h("b", {}, "Through the layers"),
      tokenName(data, state.token),
      " \u00b7 height = share, colour = weight",
    );
    const room = state.wide ? state.width - Math.max(this.table?.width ?? 0, 340) - 24 : state.width;
    this.geometry = paintWay(this.way, data, state.token, room, state);
    const known = data.facts.layers.filter((l) => data.isExact(l.layer));
    this.way.setAttribute(
      "aria-label",
      `Experts of ${data.facts.tokens[state.token]}: ${known.map((l) => `layer ${l.layer} ${choiceWords(data.choices(l.layer, state.token!) ?? [])}`).join("; ")}`,
    );
  }

  /** The tokens that the chosen expert got, underlined by their weight. */
  private showText(data: StripData, layer: LayerFacts, state: DetailState): void {
    const holder = this.text.parentElement!;
    const weights = state.expert === null ? null : data.weightsOf(layer.layer, state.expert);
    holder.hidden = layer.used === 0 || weights === null;
    if (holder.hidden || !weights || state.expert === null) return;
    const got = data.count(layer.layer, state.expert);
    this.textTitle.replaceChildren(
      h("b", {}, `Where E${state.expert} works`),
      `${count(got)} of ${count(data.rowsOf(layer.layer))} tokens \u00b7 underline = weight, same scale`,
    );
    const first = Math.max(0, Math.min(data.tokens - TEXT, (state.token ?? 0) - TEXT / 2));
    const stop = Math.min(data.tokens, first + TEXT);
    const key = `${first} ${data.tokens} ${data.facts.provenance}`;
    if (key !== this.written) {
      this.written = key;
      const words = [];
      for (let t = first; t < stop; t++)
        words.push(h("span", { class: "lt-es-word", "data-token": t }, running(data.facts.tokens[t] ?? "")));
      this.text.replaceChildren(
        ...(first > 0 ? [h("span", { class: "lt-quiet" }, `${count(first)} tokens before \u2026 `)] : []),
        ...words,
        ...(stop < data.tokens
          ? [h("span", { class: "lt-quiet" }, ` \u2026 ${count(data.tokens - stop)} after`)]
          : []),
      );
    }
    for (const word of this.text.querySelectorAll<HTMLElement>(".lt-es-word")) {
      const t = Number(word.dataset.token);
      const own = weights[t]!;
      const chosen = !Number.isNaN(own);
      const colour = chosen ? css(shade(state.theme, own / (data.facts.most || 1))) : "transparent";
      word.style.setProperty("--lt-share", colour);
      word.classList.toggle("lt-some", chosen);
      word.classList.toggle("lt-unseen", !data.computed(layer.layer, t));
      word.classList.toggle("lt-query", t === state.token);
      setProps(word, { title: chosen ? `${weight(own)} to E${state.expert}` : null });
    }
  }

  // --------------------------------------------------------------------- pointer

  private overTable(e: PointerEvent): void {
    const { data, state, table } = this;
    if (!data || !state || !table || state.layer === null || e.pointerType === "touch") return;
    const box = this.canvas.getBoundingClientRect();
    const at = tableHit(table, data.facts.n_experts, e.clientX - box.left, e.clientY - box.top);
    this.canvas.style.cursor = at ? "pointer" : "";
    if (!at) {
      this.hideTip();
      return;
    }
    this.preview(data, state.layer, table, at.token, at.expert);
  }

  /** Rings a cell, or a bar of the load, and explains it. */
  private preview(data: StripData, layer: number, table: Table, token: number | null, expert: number): void {
    const box = this.canvas.getBoundingClientRect();
    const x = table.left + Math.floor(expert * table.cellX);
    const y = token === null ? table.base - LOAD : table.top + (token - table.from) * table.cellY;
    const tall = token === null ? LOAD : table.cellY;
    const wide = Math.max(3, table.cellX);
    this.ring.hidden = false;
    this.ring.style.transform = `translate(${x - 2}px, ${y - 2}px)`;
    this.ring.style.width = `${wide + 3}px`;
    this.ring.style.height = `${tall + 3}px`;
    const target = new DOMRect(box.left + x, box.top + y, wide, tall);
    this.explain(target, () => this.tableWords(data, layer, token, expert));
  }

  private tableWords(
    data: StripData,
    layer: number,
    token: number | null,
    expert: number,
  ): (Node | string)[] {
    if (token === null) return [h("b", {}, `E${expert} `), loadWords(data, layer, expert)];
    const own = data.choices(layer, token)?.find((c) => c.expert === expert);
    const words = own
      ? `${weight(own.weight)} \u00b7 share ${weight(own.share)}`
      : data.computed(layer, token)
        ? "not chosen"
        : "not computed";
    return [
      tokenName(data, token),
      h("span", { class: "lt-quiet" }, " \u2192 "),
      h("b", {}, `E${expert} `),
      words,
    ];
  }

  private clickTable(e: MouseEvent): void {
    const { data, table } = this;
    if (!data || !table) return;
    const box = this.canvas.getBoundingClientRect();
    const at = tableHit(table, data.facts.n_experts, e.clientX - box.left, e.clientY - box.top);
    if (!at) return;
    this.twin.element.focus({ preventScroll: true });
    this.hideTip();
    this.cursor = [at.token ?? this.cursor[0], at.expert];
    if (at.token !== null) this.events.token(at.token);
    this.events.expert(at.expert);
  }

  // -------------------------------------------------------------------- keyboard

  /** The element that takes the table's focus. */
  get focusable(): HTMLElement {
    return this.twin.element;
  }

  /** Arrows step through tokens and experts, Enter chooses both; true when the key was used. */
  key(event: KeyboardEvent): boolean {
    const { data, state } = this;
    if (!data || !state) return false;
    const [token, expert] = this.cursor;
    if (event.key === "Enter") {
      this.events.token(token);
      this.events.expert(expert);
      return true;
    }
    const end = data.facts.n_experts - 1;
    const steps: Record<string, [number, number]> = {
      ArrowLeft: [token, expert - 1],
      ArrowRight: [token, expert + 1],
      ArrowUp: [token - 1, expert],
      ArrowDown: [token + 1, expert],
      Home: [token, 0],
      End: [token, end],
    };
    const to = steps[event.key];
    if (!to) return false;
    this.cursor = [Math.max(0, Math.min(data.tokens - 1, to[0])), Math.max(0, Math.min(end, to[1]))];
    const { table } = this;
    // Beyond the window the token is chosen, so that the window follows.
    if (table && (this.cursor[0] < table.from || this.cursor[0] >= table.to))
      this.events.token(this.cursor[0]);
    requestAnimationFrame(() => this.point());
    return true;
  }

  private leave(): void {
    this.focused = false;
    this.hideTip();
  }

  private showTwin(): void {
    const { data, state } = this;
    if (!data || !state) return;
    const chosen = (token: number, expert: number) => token === state.token && expert === state.expert;
    this.twin.show(data.tokens, data.facts.n_experts, ...this.cursor, chosen);
  }

  private enter(): void {
    this.focused = true;
    const { state, table } = this;
    if (!state || !table) return;
    const inside = state.token !== null && state.token >= table.from && state.token < table.to;
    this.cursor = [inside ? state.token! : table.from, state.expert ?? 0];
    this.point();
  }

  /** Brings ring, tooltip and the screen reader's cell to the cursor. */
  private point(): void {
    const { data, state, table } = this;
    const [token, expert] = this.cursor;
    if (!data || !state || !table || state.layer === null || token < table.from || token >= table.to) return;
    this.showTwin();
    this.preview(data, state.layer, table, token, expert);
  }

  private say(token: number, expert: number): string | null {
    const { data, state } = this;
    if (!data || !state || state.layer === null) return null;
    const own = data.choices(state.layer, token)?.find((c) => c.expert === expert);
    return `${data.facts.tokens[token] ?? ""}, expert ${expert}: ${own ? weight(own.weight) : "not chosen"}`;
  }

  private wayLayer(e: MouseEvent): LayerFacts | null {
    const { data, geometry } = this;
    if (!data || !geometry) return null;
    const box = this.way.getBoundingClientRect();
    return data.facts.layers[Math.floor((e.clientX - box.left) / geometry.step)] ?? null;
  }

  private overWay(e: PointerEvent): void {
    const { data, state, geometry } = this;
    const layer = this.wayLayer(e);
    if (!data || !state || !geometry || !layer || state.token === null) {
      this.hideTip();
      return;
    }
    const { token } = state;
    this.way.style.cursor = "pointer";
    const box = this.way.getBoundingClientRect();
    const at = geometry.x(data.facts.layers.indexOf(layer));
    const target = new DOMRect(box.left + at, box.top, geometry.step, geometry.tall);
    this.explain(target, () => {
      const choices = data.choices(layer.layer, token);
      const none = layer.used === 0 ? "no experts" : choices ? "not computed" : "not here: click to read it";
      return [
        h("b", {}, `Layer ${layer.layer} `),
        choices && choices.length > 0 ? choiceWords(choices) : none,
      ];
    });
  }

  private clickWay(e: MouseEvent): void {
    const layer = this.wayLayer(e);
    if (layer) this.events.layer(layer.layer);
  }

  private clickText(e: MouseEvent): void {
    const token = (e.target as HTMLElement).closest<HTMLElement>("[data-token]")?.dataset.token;
    if (token !== undefined) this.events.token(Number(token));
  }

  private explain(target: DOMRect, words: () => (Node | string)[]): void {
    const show = () => {
      this.tip.element.replaceChildren(...words());
      this.tip.show(target, [], 10);
    };
    if (this.tip.shown) show();
    else this.delay.start(80, show);
  }
}

function even(value: number | null | undefined): string {
  return value === null || value === undefined ? "" : `evenness ${value.toFixed(2)}`;
}
