// The locked head, large: its matrix, what the chosen token looks at, its place among all heads, the text.
// In: a head (or its thumbnail while it is not there), the chosen tokens. Out: chosen tokens.
import { css } from "../shared/colour";
import { Cleanup, h, Timer } from "../shared/dom";
import { count, smallWeight, weight } from "../shared/format";
import type { Cell } from "./cross";
import type { GridData } from "./data";
import { queryName, tokenName } from "./names";
import { Plate, type PlateState } from "./plate";
import { type Reading, read } from "./reading";
import type { Replay } from "./replay";
import { StagesView } from "./stages";
import { TextStrip } from "./strip";
import { SumsView } from "./sums";
import { VectorsView } from "./vectors";
import type { Source } from "./view";

/** How the locked head stands. */
export type HeadStatus =
  | { readonly kind: "exact"; readonly replay: Replay }
  | { readonly kind: "loading" }
  | { readonly kind: "no-kernel" }
  | { readonly kind: "busy" }
  | { readonly kind: "error"; readonly message: string };

export interface DetailState extends PlateState {
  readonly status: HeadStatus;
  /** The query, the key, and tokens that a sum goes over besides. */
  readonly tokens: readonly number[];
}

export interface DetailEvents {
  tokens(tokens: number[]): void;
  retry(): void;
  /** The head stands on the screen with exact values. */
  drawn(): void;
}

/** Waiting shorter than this is not worth a word. */
const QUIET_WAIT = 200;

export class DetailView {
  readonly element = h("section", { class: "lt-detail", hidden: true });
  private readonly cleanup = new Cleanup();
  private readonly notice = h("div", { class: "lt-notice", role: "status", hidden: true });
  private readonly sentence = h("div", { class: "lt-sentence" });
  private readonly among = h("div", { class: "lt-among" });
  private readonly wait: Timer;
  readonly plate: Plate;
  readonly stages: StagesView;
  readonly vectors: VectorsView;
  private readonly sums: SumsView;
  readonly strip: TextStrip;
  private data: GridData | null = null;
  private state: DetailState | null = null;
  private replay: Replay | null = null;
  private reading: Reading | null = null;
  private painted = "";
  private amongFor = "";
  private ticks: (() => void)[] = [];

  constructor(
    private readonly events: DetailEvents,
    source: Pick<Source, "tile" | "sums" | "tokenStats">,
  ) {
    const { cleanup } = this;
    this.wait = new Timer(cleanup);
    this.plate = new Plate(
      cleanup,
      {
        choose: (tokens) => events.tokens(tokens),
        add: (token) => this.addToSum(token),
        hover: (cell) => this.hover(cell),
        drawn: () => events.drawn(),
      },
      (...asked) => source.tile(...asked),
    );
    this.stages = new StagesView(cleanup, {
      choose: (cell) => events.tokens([...cell]),
      hover: (cell) => this.hover(cell),
      tile: (head, { rows, keys }, stage, size) =>
        source.tile(head.layer, head.head, stage, [0, rows], [0, keys], size),
    });
    this.vectors = new VectorsView(cleanup);
    this.sums = new SumsView(cleanup, {
      choose: (tokens) => events.tokens(tokens),
      remove: (token) => this.addToSum(token),
      sums: (...asked) => source.sums(...asked),
    });
    this.strip = new TextStrip(cleanup, {
      choose: (token) => this.chooseInText(token),
      add: (token) => this.addToSum(token),
      tokenStats: () => source.tokenStats(),
    });
    const right = h(
      "div",
      { class: "lt-right" },
      this.notice,
      this.sentence,
      this.stages.element,
      this.vectors.element,
      this.among,
      this.strip.element,
    );
    this.element.append(this.plate.element, right, this.sums.element);
    // The strips' width is the page's business: a host that swaps its style sheets has none for a moment.
    const observer = new ResizeObserver(() => {
      for (const paint of this.ticks) paint();
    });
    observer.observe(this.among);
    cleanup.add(() => observer.disconnect());
  }

  destroy(): void {
    this.cleanup.run();
  }

  hide(): void {
    this.element.hidden = true;
    this.state = null;
    this.painted = "";
    this.amongFor = "";
    this.plate.hideTip();
    this.wait.stop();
  }

  show(data: GridData, state: DetailState): void {
    this.data = data;
    this.state = state;
    this.element.hidden = false;
    this.replay = state.status.kind === "exact" ? state.status.replay : null;
    this.pick();
    this.plate.show(data, state, this.replay, this.reading);
    this.showNotice();
    this.showSentence();
    this.showStages(state);
    this.showAmong();
    this.strip.show(data, this.replay, this.reading, state);
  }

  /** Which heads pass the filters, when some do not: sums may go over them. */
  keep(kept: Uint8Array | null): void {
    this.sums.keep(kept);
  }

  /** What the announcer says of the chosen cell. */
  get words(): string {
    return this.plate.words;
  }

  get now(): Reading | null {
    return this.reading;
  }

  /** A token of the text is the query; in cross attention the text is the keys', so it is the key. */
  private chooseInText(token: number): void {
    if (this.data?.same) this.events.tokens([token]);
    else if (this.reading) this.events.tokens([this.reading.query, token]);
  }

  private pick(): void {
    const { replay, state } = this;
    this.reading = null;
    if (!replay || !state) return;
    const last = replay.rows - 1;
    const query = Math.min(state.tokens[0] ?? last, last);
    this.reading =
      read(replay.row(query), query, state.tokens[1] ?? null, state.sinkAside) ??
      read(replay.row(last), last, null, state.sinkAside);
  }

  private showNotice(): void {
    const { state, data } = this;
    if (!state || !data) return;
    const { status } = state;
    this.wait.stop();
    this.notice.hidden = status.kind === "exact";
    const picture = `Shown here is its saved ${data.facts.side_rows} \u00d7 ${data.facts.side_keys} thumbnail.`;
    const exactPicture = data.facts.side_rows === data.facts.n_tokens;
    const say = (strong: string, rest: string, ...more: HTMLElement[]) =>
      this.notice.replaceChildren(h("b", {}, strong), ` ${rest} ${exactPicture ? "" : picture}`, ...more);
    const retry = h("button", { type: "button", class: "lt-button" }, "Try again");
    retry.addEventListener("click", () => this.events.retry());
    if (status.kind === "no-kernel") say("Its exact weights need a kernel:", "run the cell again.");
    if (status.kind === "busy")
      say("The kernel is busy.", "This head comes when the running cell has finished.");
    if (status.kind === "error") say("This head could not be read.", status.message, retry);
    if (status.kind === "loading") {
      this.notice.hidden = true;
      this.wait.start(QUIET_WAIT, () => {
        say("Reading", `layer ${state.head.layer} head ${state.head.head} \u2026`);
        this.notice.hidden = false;
      });
    }
  }

  private showSentence(): void {
    const { reading: r, data } = this;
    this.sentence.hidden = !r;
    if (!r || !data) return;
    const token = (i: number) => h("span", { class: "lt-token" }, tokenName(data, i));
    const others = r.others.flatMap(([k, w], i) => [i > 0 ? ", " : "", token(k), ` ${smallWeight(w)}`]);
    const masked = Number.isNaN(r.weight);
    const rest = masked
      ? [r.key > r.query ? "masked: the key comes later" : "outside the window: not attended"]
      : [
          `rank ${r.rank} of ${count(r.visible)}`,
          r.afterSink ? " (after the sink)" : "",
          others.length > 0 ? (r.rank === 1 || r.afterSink ? " \u00b7 next: " : " \u00b7 highest: ") : "",
          ...others,
        ];
    this.sentence.replaceChildren(
      h("span", { class: "lt-chip" }, queryName(data, r.query)),
      h("span", { class: "lt-verb" }, "looks at"),
      h("span", { class: "lt-chip lt-chip-on" }, tokenName(data, r.key)),
      h("span", { class: "lt-big" }, masked ? "\u2013" : smallWeight(r.weight)),
      h("span", { class: "lt-quiet" }, ...rest),
    );
  }

  /** What of the chosen cell needs the head itself. */
  private showStages(state: DetailState): void {
    const { data, reading } = this;
    if (!data || !reading || state.status.kind !== "exact") {
      for (const part of [this.stages, this.vectors, this.sums]) part.hide();
      return;
    }
    const { replay } = state.status;
    const { query, key } = reading;
    this.stages.show(data, replay, [query, key], state);
    this.vectors.show(data, replay, [query, key], state);
    const more = state.tokens.slice(2);
    const [looks, seen] = data.same
      ? [
          [query, ...more],
          [query, ...more],
        ]
      : [[query], [key, ...more]];
    this.sums.show(data, { looks, seen }, state);
  }

  /** Puts a token into the sum, or takes it out. */
  private addToSum(token: number): void {
    const { reading, data, state } = this;
    if (!reading || !data || !state || token === (data.same ? reading.query : reading.key)) return;
    const more = state.tokens.slice(2);
    const rest = more.includes(token) ? more.filter((t) => t !== token) : [...more, token];
    this.events.tokens([reading.query, reading.key, ...rest]);
  }

  /** One crosshair: the cell that is pointed at is marked in all pictures. */
  private hover(cell: Cell | null): void {
    this.plate.hover(cell);
    this.stages.hover(cell);
  }

  private showAmong(): void {
    const { state, data } = this;
    if (!state || !data) return;
    const key = [state.head.index, state.width, state.ratio, data.facts.phase].join();
    if (this.amongFor === key && this.painted === state.theme.sans + css(state.theme.ink)) return;
    this.amongFor = data.facts.phase === "computing" ? "" : key;
    this.painted = state.theme.sans + css(state.theme.ink);
    const n = data.heads.length;
    this.ticks = [];
    const rows = data.facts.statistics
      .filter((f) => f.histogram)
      .flatMap((f) => {
        const canvas = h("canvas", { "aria-hidden": "true" });
        const mine = data.value(state.head, f.key);
        const rank = data.rank(state.head, f.key);
        const strip = h("div", { class: "lt-ticks-strip" }, canvas);
        this.ticks.push(() => paintTicks(canvas, data.column(f.key), mine, f.lo, f.hi, state));
        return [
          h("span", { class: "lt-among-name" }, f.label),
          strip,
          h("b", { class: "lt-number" }, weight(mine, 2)),
          h(
            "span",
            { class: "lt-quiet lt-number" },
            rank > 0 ? `#${count(rank)} of ${count(n)}` : "no value",
          ),
        ];
      });
    this.among.replaceChildren(
      h(
        "h4",
        {},
        h("b", {}, `This head among all ${count(n)}`),
        h("span", {}, "tick = one head, orange = this one"),
      ),
      h("div", { class: "lt-among-rows" }, ...rows),
    );
    for (const paint of this.ticks) paint();
  }
}

/** One tick per head; where many heads stand close the ticks darken. */
function paintTicks(
  canvas: HTMLCanvasElement,
  values: Float32Array,
  mine: number,
  lo: number,
  hi: number,
  state: DetailState,
): void {
  const width = canvas.parentElement?.clientWidth ?? 0;
  const ctx = canvas.getContext("2d");
  if (!ctx || width === 0) return;
  const height = 13;
  canvas.width = Math.round(width * state.ratio);
  canvas.height = Math.round(height * state.ratio);
  const at = (v: number) =>
    Math.round(Math.max(0, Math.min(1, (v - lo) / (hi - lo || 1))) * (canvas.width - state.ratio));
  ctx.fillStyle = css(state.theme.ink2);
  ctx.globalAlpha = values.length > 400 ? 0.25 : 0.42;
  for (const v of values)
    if (!Number.isNaN(v)) ctx.fillRect(at(v), 0, Math.max(1, Math.round(state.ratio * 0.75)), canvas.height);
  ctx.globalAlpha = 1;
  if (Number.isNaN(mine)) return;
  ctx.fillStyle = css(state.theme.accent);
  ctx.fillRect(Math.max(0, at(mine) - state.ratio), 0, 3 * state.ratio, canvas.height);
}
