// The prompt as text: what the chosen token looks at, or how likely the model found each token, as colour per token.
// In: tokens, the head, the reading. Out: the token the user chooses as query, tokens added to a sum, the colours wanted.
// Only the lines in sight are in the page; the text scrolls inside itself.
import { css, luminance, type Rgb } from "../shared/colour";
import { type Cleanup, Frame, h, setProps } from "../shared/dom";
import { running, smallWeight, subscript } from "../shared/format";
import type { Theme } from "../shared/theme";
import { Segmented } from "./controls";
import type { GridData } from "./data";
import { breakLines, lineOf } from "./lines";
import type { Reading } from "./reading";
import type { Replay } from "./replay";
import { logPosition } from "./scale";
import { type ColourBy, TOKEN_COLOURS, type TokenStat } from "./token_colours";

export interface StripEvents {
  choose(token: number): void;
  /** Shift-click: into the sum, or out of it. */
  add(token: number): void;
  /** Fetches the tokens' statistics. */
  tokenStats(): Promise<void>;
}

export interface StripLook {
  readonly theme: Theme;
  /** The query, the key, and tokens that a sum goes over besides. */
  readonly tokens: readonly number[];
}

/** Up to this many tokens every token has its underline. */
const SHORT = 64;
/** Above this a long prompt's token is filled, down to LEAST it is underlined. */
const FILLED = 0.03;
const LEAST = 0.002;
/** Behind text only this much of the scale is used. */
const BEHIND_TEXT = 0.6;
/** Lines that are seen at once, and those above and below that are in the page besides. */
const LINES = 15;
const SPARE = 4;
/** Type of a short and of a long prompt: size, height of a line, room after each token. */
const TYPE = { short: { size: 13, line: 28, after: 1 }, long: { size: 12, line: 20, after: 0 } } as const;
/** Width of a character where nothing can be measured. */
const CHARACTER = 0.602;

export class TextStrip {
  readonly element = h("div", { class: "lt-strip" });
  private readonly heading = h("h4", {});
  private readonly text = h("div", {
    class: "lt-text",
    role: "listbox",
    tabindex: 0,
    "data-region": "strip",
    "aria-orientation": "horizontal",
  });
  private readonly page = h("div", { class: "lt-lines", role: "presentation" });
  private readonly legend = h("div", { class: "lt-legend lt-strip-legend" });
  private readonly colours: Segmented<ColourBy>;
  private readonly scrolled: Frame;
  private readonly lines = new Map<number, HTMLElement>();
  private names: string[] = [];
  private widths = new Float32Array(0);
  private starts: number[] = [];
  private measured = "";
  private broken = "";
  private for: readonly string[] | null = null;
  private data: GridData | null = null;
  private look: StripLook | null = null;
  private values: Float32Array = new Float32Array(0);
  private by: ColourBy = "attention";
  private notice = "";
  private cursor = -1;
  private shown: Parameters<TextStrip["show"]> | null = null;
  private readonly id = `lt-strip-${++TextStrip.views}`;
  private static views = 0;

  constructor(
    cleanup: Cleanup,
    private readonly events: StripEvents,
  ) {
    const stats = (Object.keys(TOKEN_COLOURS) as TokenStat[]).map((key) => {
      const { label, words } = TOKEN_COLOURS[key];
      return [key, label, words] as const;
    });
    this.colours = new Segmented<ColourBy>(
      "Colour by",
      [["attention", "Attention", "Where the chosen token looks"], ...stats],
      cleanup,
      (by) => this.colourBy(by),
    );
    this.colours.element.classList.add("lt-small");
    const bar = h(
      "div",
      { class: "lt-strip-bar" },
      h("span", { class: "lt-quiet" }, "Colour by"),
      this.colours.element,
    );
    this.text.append(this.page);
    this.element.append(this.heading, bar, this.text, this.legend);
    this.scrolled = new Frame(cleanup, () => this.render());
    cleanup.on(this.text, "scroll", () => this.scrolled.ask(), { passive: true });
    cleanup.on<MouseEvent>(this.text, "click", (e) => {
      const at = Number((e.target as HTMLElement).dataset.token ?? Number.NaN);
      if (Number.isNaN(at)) return;
      if (e.shiftKey) this.events.add(at);
      else this.events.choose(at);
    });
    // Shift-click adds a token; the browser would select text.
    cleanup.on<MouseEvent>(this.text, "mousedown", (e) => {
      if (e.shiftKey) e.preventDefault();
    });
    const observer = new ResizeObserver(() => {
      if (this.lay()) this.render();
    });
    observer.observe(this.text);
    cleanup.add(() => observer.disconnect());
  }

  show(data: GridData, replay: Replay | null, reading: Reading | null, look: StripLook): void {
    this.data = data;
    this.look = look;
    this.shown = [data, replay, reading, look];
    this.element.hidden = replay?.keys !== data.facts.n_tokens || !reading;
    if (!replay || !reading || this.element.hidden) return;
    const cursor = data.same ? reading.query : reading.key;
    const moved = cursor !== this.cursor;
    this.cursor = cursor;
    const stat = this.by === "attention" ? null : data.ofTokens(this.by);
    if (stat) this.notice = "";
    this.values = this.by === "attention" ? replay.row(reading.query) : (stat ?? new Float32Array(0));
    this.name(data);
    this.element.classList.toggle("lt-no-stats", data.facts.token_stats.length === 0);
    this.colours.offer("divergence", data.facts.token_stats.includes("divergence"));
    this.colours.show(this.by);
    this.showHeading(data, reading);
    this.showLegend(look.theme);
    const news = this.lay();
    if (moved || news) this.reveal();
    this.render();
  }

  key(event: KeyboardEvent): boolean {
    const last = (this.data?.facts.n_tokens ?? 1) - 1;
    const { cursor, starts } = this;
    const line = lineOf(starts, cursor);
    const below = (by: number) => {
      const to = Math.max(0, Math.min(starts.length - 1, line + by));
      const end = to + 1 < starts.length ? starts[to + 1]! - 1 : last;
      return Math.min(end, starts[to]! + cursor - starts[line]!);
    };
    const goals: Record<string, number> = {
      ArrowLeft: cursor - 1,
      ArrowRight: cursor + 1,
      ArrowUp: below(-1),
      ArrowDown: below(1),
      PageUp: this.long ? below(1 - LINES) : cursor - 5,
      PageDown: this.long ? below(LINES - 1) : cursor + 5,
      Home: 0,
      End: last,
    };
    const goal = goals[event.key];
    if (goal === undefined || event.altKey || event.ctrlKey || event.metaKey) return false;
    this.events.choose(Math.max(0, Math.min(last, goal)));
    return true;
  }

  private get long(): boolean {
    return this.names.length > SHORT;
  }

  private get type(): (typeof TYPE)["short" | "long"] {
    return this.long ? TYPE.long : TYPE.short;
  }

  private colourBy(by: ColourBy): void {
    this.by = by;
    this.notice = "";
    const { data } = this;
    if (by !== "attention" && data && !data.ofTokens(by)) {
      this.notice = "Computing what the model thought of each token \u2026";
      this.events.tokenStats().catch((reason: unknown) => {
        const words = reason instanceof Error ? reason.message : String(reason);
        this.notice = `These values need a kernel: ${words}`;
        if (this.look) this.showLegend(this.look.theme);
      });
    }
    if (this.shown) this.show(...this.shown);
  }

  private name(data: GridData): void {
    const { tokens, kinds } = data.facts;
    if (this.for === tokens) return;
    this.for = tokens;
    this.measured = "";
    this.names = tokens.map((token, i) => {
      const odd = (kinds[i] ?? "normal") !== "normal";
      return (odd ? token : running(token)) || "\u2205";
    });
  }

  /** Sets the text in lines of the present width; true when they are others than before. */
  private lay(): boolean {
    const room = this.text.clientWidth - (this.long ? 12 : 4);
    const { theme } = this.look ?? {};
    if (!theme || room < 40) return false;
    const font = `${this.type.size}px ${theme.mono}`;
    if (this.measured !== font) {
      this.measured = font;
      this.broken = "";
      this.widths = measure(this.names, font, this.type);
    }
    if (this.broken === String(room)) return false;
    this.broken = String(room);
    this.starts = breakLines(this.names, this.widths, room);
    this.page.style.height = `${this.starts.length * this.type.line}px`;
    this.text.style.height = `${Math.min(LINES, this.starts.length) * this.type.line}px`;
    this.text.classList.toggle("lt-long", this.long);
    this.clear();
    return true;
  }

  private clear(): void {
    for (const line of this.lines.values()) line.remove();
    this.lines.clear();
  }

  /** Scrolls so that the chosen token is in sight, and no further. */
  private reveal(): void {
    const { line } = this.type;
    const at = lineOf(this.starts, this.cursor) * line;
    const seen = Math.min(LINES, this.starts.length) * line;
    const top = this.text.scrollTop;
    if (at < top || at + line > top + seen)
      this.text.scrollTop = Math.max(0, Math.round((at - seen / 2) / line) * line);
  }

  /** Brings the lines in sight to the present values. */
  private render(): void {
    const { starts, data } = this;
    if (!data || this.element.hidden) return;
    const first = Math.max(0, Math.floor(this.text.scrollTop / this.type.line) - SPARE);
    const last = Math.min(starts.length, first + LINES + 2 * SPARE + 1);
    for (const [i, line] of this.lines) {
      if (i >= first && i < last) continue;
      line.remove();
      this.lines.delete(i);
    }
    for (let i = first; i < last; i++) {
      const line = this.lines.get(i) ?? this.line(i);
      for (const span of line.children) this.paint(span as HTMLElement, data);
    }
    this.text.setAttribute("aria-activedescendant", this.id);
  }

  /** Makes one line, in its place among those that are there. */
  private line(i: number): HTMLElement {
    const { starts, names } = this;
    const end = starts[i + 1] ?? names.length;
    const line = h("div", { class: "lt-line", role: "presentation" });
    line.style.top = `${i * this.type.line}px`;
    for (let t = starts[i]!; t < end; t++) {
      const odd = (this.data?.facts.kinds[t] ?? "normal") !== "normal";
      const written = t >= (this.data?.facts.generated ?? Number.POSITIVE_INFINITY) && this.data?.same;
      const name = names[t]!;
      const span = h(
        "bdi",
        {
          role: "option",
          class: `lt-word${odd ? " lt-odd" : ""}${written ? " lt-written" : ""}`,
          "data-token": t,
        },
        t === starts[i] && !odd ? name.replace(/^ (?=.)/, "") : name,
      );
      setProps(span, { "aria-setsize": names.length, "aria-posinset": t + 1 });
      line.append(span);
    }
    const after = [...this.lines.keys()].filter((k) => k > i).sort((a, b) => a - b)[0];
    this.page.insertBefore(line, after === undefined ? null : this.lines.get(after)!);
    this.lines.set(i, line);
    return line;
  }

  private paint(span: HTMLElement, data: GridData): void {
    const { look } = this;
    if (!look) return;
    const at = Number(span.dataset.token);
    const value = this.values[at] ?? Number.NaN;
    const chosen = at === this.cursor;
    span.classList.toggle("lt-query", chosen);
    span.classList.toggle("lt-picked", look.tokens.indexOf(at, 2) >= 0);
    setProps(span, { id: chosen ? this.id : null, "aria-selected": String(chosen) });
    const name = `${data.facts.tokens[at]}${subscript(at)}`;
    if (this.by === "attention") {
      paintWeight(span, value, this.long, look.theme);
      span.title = Number.isNaN(value) ? "" : `${name} ${smallWeight(value)}`;
      return;
    }
    const { position, say } = TOKEN_COLOURS[this.by];
    paintFill(span, Number.isNaN(value) ? null : position(value), look.theme);
    const none = this.values.length > 0 ? `${name}: nothing came before it to expect it by` : "";
    span.title = Number.isNaN(value) ? none : `${name} ${say(value)}`;
  }

  private showHeading(data: GridData, reading: Reading): void {
    const label = data.queries[reading.query] ?? "";
    const words =
      this.by !== "attention"
        ? `${this.by === "divergence" ? `KL from ${data.facts.against} \u00b7 ` : ""}${TOKEN_COLOURS[this.by].words}`
        : this.long
          ? "filled \u2265 0.03 \u00b7 underlined \u2265 0.002 \u00b7 grey: not seen"
          : "underline = share of attention, log scale";
    const title =
      this.by === "attention"
        ? h(
            "b",
            {},
            "Where ",
            h("bdi", { class: "lt-mono" }, label + subscript(reading.query)),
            " looks, in the text",
          )
        : h("b", {}, `${TOKEN_COLOURS[this.by].label} of each token`);
    const written =
      data.facts.generated !== undefined && data.same ? " \u00b7 overlined: the model\u2019s own" : "";
    this.heading.replaceChildren(title, h("span", {}, words + written));
    this.text.setAttribute("aria-label", `Tokens: choose which one looks. Now ${label} ${reading.query}`);
  }

  private showLegend(theme: Theme): void {
    this.legend.hidden = this.by === "attention";
    if (this.by === "attention") return;
    if (this.notice) {
      this.legend.replaceChildren(h("span", { class: "lt-quiet", role: "status" }, this.notice));
      return;
    }
    const most = Math.round(BEHIND_TEXT * 255);
    const stops = theme.sequential.slice(0, most + 1).filter((_, i) => i % 17 === 0);
    const bar = h("div", { class: "lt-ramp" });
    bar.style.background = `linear-gradient(90deg, ${stops.map(css).join(",")})`;
    const ticks = TOKEN_COLOURS[this.by].ticks.map(([at, label]) => {
      const end = at === 1 && label.length > 4 ? "lt-end" : null;
      const tick = h("span", { class: at === 0 ? "lt-begin" : end }, label);
      tick.style.left = `${at * 100}%`;
      return tick;
    });
    this.legend.replaceChildren(
      h("div", { class: "lt-scale" }, bar, h("div", { class: "lt-ticks" }, ...ticks)),
    );
  }
}

/** How wide each token is, in CSS pixels; the same token is measured once. */
function measure(
  names: readonly string[],
  font: string,
  type: { readonly size: number; readonly after: number },
): Float32Array<ArrayBuffer> {
  const ctx = document.createElement("canvas").getContext("2d");
  const known = new Map<string, number>();
  if (ctx) ctx.font = font;
  return Float32Array.from(names, (name) => {
    let width = known.get(name);
    if (width === undefined) {
      width = ctx ? ctx.measureText(name).width : name.length * type.size * CHARACTER;
      known.set(name, width);
    }
    return width + type.after;
  });
}

/** A share of attention: an underline, and a fill where a long prompt's token has much of it. */
function paintWeight(span: HTMLElement, value: number, long: boolean, theme: Theme): void {
  const unseen = Number.isNaN(value);
  span.classList.toggle("lt-unseen", unseen);
  span.classList.toggle("lt-some", !unseen && value >= (long ? LEAST : 0.01));
  span.classList.toggle("lt-much", !unseen && value >= 0.1);
  const at = unseen ? 0 : logPosition(value);
  const colour = theme.sequential[Math.round(at * 255)]!;
  const share = unseen ? "transparent" : css(long && value < LEAST ? theme.paper : colour);
  span.style.setProperty("--lt-share", share);
  fill(span, long && !unseen && value >= FILLED ? at : null, theme);
}

/** A value that fills its token; null = there is none. */
function paintFill(span: HTMLElement, at: number | null, theme: Theme): void {
  span.classList.toggle("lt-unseen", at === null);
  span.classList.toggle("lt-some", at !== null);
  span.classList.remove("lt-much");
  span.style.setProperty("--lt-share", "transparent");
  fill(span, at, theme);
}

function fill(span: HTMLElement, at: number | null, theme: Theme): void {
  const behind = at === null ? null : theme.sequential[Math.round(at * BEHIND_TEXT * 255)]!;
  span.style.background = behind ? css(behind) : "";
  span.style.color = behind ? css(readable(behind, theme)) : "";
}

/** Ink or paper, whichever can be read on this colour. */
function readable(behind: Rgb, theme: Theme): Rgb {
  const dark = luminance(behind) < 0.22;
  return dark === theme.dark ? theme.ink : theme.paper;
}
