// The prompt as text: what the chosen token looks at, as an underline (short prompts) or a fill (long ones) per token.
// In: tokens, the exact matrix, the reading. Out: the token the user chooses as query.
import { css, luminance, mix } from "../shared/colour";
import { type Cleanup, h, setProps } from "../shared/dom";
import { running, smallWeight, subscript } from "../shared/format";
import type { Theme } from "../shared/theme";
import type { GridData } from "./data";
import type { Reading } from "./reading";
import type { Replay } from "./replay";
import { logPosition } from "./scale";

/** Up to this many tokens every token has its underline. */
const SHORT = 64;
/** Above this a long prompt's token is filled, down to LEAST it is underlined. */
const FILLED = 0.03;
const LEAST = 0.002;
/** Behind text only this much of the scale is used. */
const BEHIND_TEXT = 0.6;
/** Tokens before and after the query that are in the page at all. */
const AROUND = 1500;

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
  private spans: HTMLElement[] = [];
  private from = 0;
  private for: GridData | null = null;
  private cursor = -1;
  private readonly id = `lt-strip-${++TextStrip.views}`;
  private static views = 0;

  constructor(
    cleanup: Cleanup,
    private readonly choose: (query: number) => void,
  ) {
    this.element.append(this.heading, this.text);
    cleanup.on<MouseEvent>(this.text, "click", (e) => {
      const at = this.spans.indexOf(e.target as HTMLElement);
      if (at >= 0) this.choose(this.from + at);
    });
  }

  show(data: GridData, replay: Replay | null, reading: Reading | null, look: { theme: Theme }): void {
    this.element.hidden = replay?.keys !== data.facts.n_tokens || !reading;
    if (!replay || !reading || this.element.hidden) return;
    this.cursor = data.same ? reading.query : reading.key;
    this.build(data);
    const long = data.facts.n_tokens > SHORT;
    const label = data.queries[reading.query] ?? "";
    this.heading.replaceChildren(
      h(
        "b",
        {},
        "Where ",
        h("bdi", { class: "lt-mono" }, label + subscript(reading.query)),
        " looks, in the text",
      ),
      h(
        "span",
        {},
        long
          ? "filled \u2265 0.03 \u00b7 underlined \u2265 0.002 \u00b7 grey: not seen"
          : "underline = share of attention, log scale",
      ),
    );
    this.text.setAttribute("aria-label", `Tokens: choose which one looks. Now ${label} ${reading.query}`);
    this.text.classList.toggle("lt-long", long);
    const row = replay.row(reading.query);
    this.spans.forEach((span, i) => {
      const at = this.from + i;
      paint(span, row[at]!, at === this.cursor, long, look.theme);
      span.title = Number.isNaN(row[at]!)
        ? ""
        : `${data.facts.tokens[at]}${subscript(at)} ${smallWeight(row[at]!)}`;
      setProps(span, {
        id: at === this.cursor ? this.id : null,
        "aria-selected": String(at === this.cursor),
      });
    });
    this.text.setAttribute("aria-activedescendant", this.id);
  }

  key(event: KeyboardEvent): boolean {
    const last = (this.for?.facts.n_tokens ?? 1) - 1;
    const goals: Record<string, number> = {
      ArrowLeft: this.cursor - 1,
      ArrowRight: this.cursor + 1,
      PageUp: this.cursor - 5,
      PageDown: this.cursor + 5,
      Home: 0,
      End: last,
    };
    const goal = goals[event.key];
    if (goal === undefined || event.altKey || event.ctrlKey || event.metaKey) return false;
    this.choose(Math.max(0, Math.min(last, goal)));
    return true;
  }

  private build(data: GridData): void {
    const n = data.facts.n_tokens;
    const from = n > 2 * AROUND ? Math.max(0, this.cursor - AROUND) : 0;
    const to = n > 2 * AROUND ? Math.min(n, this.cursor + AROUND) : n;
    if (this.for === data && this.from === from && this.spans.length === to - from) return;
    this.for = data;
    this.from = from;
    this.spans = data.facts.tokens.slice(from, to).map((token, i) => {
      const odd = (data.facts.kinds[from + i] ?? "normal") !== "normal";
      const name = odd ? token : running(token);
      return h(
        "bdi",
        { role: "option", class: odd ? "lt-word lt-odd" : "lt-word" },
        name === "" ? "\u2205" : name,
      );
    });
    const more = (k: number, where: string) =>
      k > 0 ? h("span", { class: "lt-quiet" }, ` \u2026 ${k} tokens ${where} `) : null;
    this.text.replaceChildren(
      ...[more(from, "before"), ...this.spans, more(n - to, "after")].filter((e) => e !== null),
    );
  }
}

function paint(span: HTMLElement, value: number, chosen: boolean, long: boolean, theme: Theme): void {
  const unseen = Number.isNaN(value);
  span.classList.toggle("lt-unseen", unseen);
  span.classList.toggle("lt-query", chosen);
  span.classList.toggle("lt-some", !unseen && value >= (long ? LEAST : 0.01));
  span.classList.toggle("lt-much", !unseen && value >= 0.1);
  const at = unseen ? 0 : logPosition(value);
  const colour = theme.sequential[Math.round(at * 255)]!;
  span.style.setProperty(
    "--lt-share",
    unseen ? "transparent" : css(long && value < LEAST ? theme.paper : colour),
  );
  const filled = long && !unseen && value >= FILLED;
  const behind = theme.sequential[Math.round(at * BEHIND_TEXT * 255)]!;
  span.style.background = filled ? css(behind) : "";
  span.style.color = filled ? css(readable(behind, theme)) : "";
}

/** Ink or paper, whichever can be read on this colour. */
function readable(
  behind: readonly [number, number, number],
  theme: Theme,
): readonly [number, number, number] {
  const dark = luminance(behind) < 0.22;
  if (theme.dark) return dark ? theme.ink : theme.paper;
  return dark ? mix(theme.paper, theme.ink, 0) : theme.ink;
}
