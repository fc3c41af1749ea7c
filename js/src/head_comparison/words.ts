// A comparison in words and numbers: the chosen cell on both sides, each query's distance in the text, statistics of both heads.
// In: numbers of the chosen pair. Out: elements; the query that was chosen in the text.
import { css, luminance, mix } from "../shared/colour";
import { type Cleanup, h, setProps } from "../shared/dom";
import { running, smallWeight, subscript, weight } from "../shared/format";
import type { Theme } from "../shared/theme";
import type { ComparisonData, Measure, Pair } from "./data";
import { greatest, MEASURES } from "./data";
import type { PairResult } from "./pair";
import { type Numbers, signed } from "./plates";

/** Tokens before and after the chosen one that are in the page. */
const AROUND = 120;
/** Behind text only this much of the scale is used. */
const BEHIND_TEXT = 0.6;
/** Statistics that one line is enough for where there is little room. */
const FEW_STATISTICS = 5;

/** The chosen cell as a sentence with its three numbers, and the distances of its row and of the whole head. */
export function sentence(
  data: ComparisonData,
  cell: readonly [number, number],
  numbers: Numbers,
  result: PairResult,
): HTMLElement[] {
  const [query, key] = cell;
  const chip = (a: readonly string[], b: readonly string[], i: number, on: boolean) => {
    const [x, y] = [a[i], b[i]];
    const other = result.difference !== null && x !== undefined && y !== undefined && x !== y;
    const name = other ? `${x} | ${y}` : (x ?? y ?? "");
    return h(
      "span",
      { class: on ? "lt-chip lt-chip-on" : "lt-chip" },
      h("bdi", { class: "lt-mono" }, name + subscript(i)),
    );
  };
  const number = (name: string, text: string, big: boolean) =>
    h(
      "span",
      { class: "lt-reading" },
      h("span", { class: "lt-quiet" }, name),
      h("span", { class: big ? "lt-big" : "lt-big lt-light" }, text),
    );
  const value = (v: number) => (Number.isNaN(v) ? "\u2013" : smallWeight(v));
  const { left, right } = data;
  const parts = [
    chip(left.query_tokens, right.query_tokens, query, false),
    h("span", { class: "lt-verb" }, "looks at"),
    chip(left.tokens, right.tokens, key, true),
    number("A", value(numbers.left), false),
    number("B", value(numbers.right), false),
  ];
  if (!result.difference) return parts;
  const [js, tv] = [result.js[query]!, result.tv[query]!];
  const row = Number.isNaN(js)
    ? "this query has no choice"
    : `this query: JS ${small(js)} bits, TV ${small(tv)}`;
  return [
    ...parts,
    number("B \u2212 A", signed(numbers.difference), true),
    h(
      "span",
      { class: "lt-quiet" },
      `${row} \u00b7 whole head: JS ${small(result.meanJs)} bits, TV ${small(result.meanTv)}`,
    ),
  ];
}

function small(value: number): string {
  return value > 0 && value < 0.001 ? value.toExponential(1).replace("-", "\u2212") : weight(value, 3);
}

/** The text, each query underlined by how far its two rows lie apart. */
export class QueryStrip {
  readonly element = h("div", { class: "lt-strip" });
  private readonly heading = h("h4", {});
  private readonly text = h("div", {
    class: "lt-text",
    role: "listbox",
    tabindex: 0,
    "data-region": "strip",
    "aria-orientation": "horizontal",
  });
  private static views = 0;
  private readonly id = `lt-queries-${++QueryStrip.views}`;
  private cursor = 0;
  private last = 0;

  constructor(
    cleanup: Cleanup,
    private readonly choose: (query: number) => void,
  ) {
    this.element.append(this.heading, this.text);
    cleanup.on<MouseEvent>(this.text, "click", (e) => {
      const at = (e.target as HTMLElement).dataset.at;
      if (at !== undefined) this.choose(Number(at));
    });
  }

  show(data: ComparisonData, result: PairResult, query: number, measure: Measure, theme: Theme): void {
    this.element.hidden = result.difference === null;
    if (this.element.hidden) return;
    const values = measure === "jensen-shannon" ? result.js : result.tv;
    const most = greatest(values);
    this.cursor = query;
    this.last = values.length - 1;
    this.heading.replaceChildren(
      h("b", {}, "Where they differ, query by query"),
      h(
        "span",
        {},
        `underline = ${MEASURES[measure].name} of the query\u2019s row, strongest ${small(most)}`,
      ),
    );
    const [from, to] = [Math.max(0, query - AROUND), Math.min(values.length, query + AROUND)];
    const { query_tokens: tokens, kinds } = data.left;
    const others = data.right.query_tokens;
    const words: (Node | null)[] = [more(from, "before")];
    for (let i = from; i < to; i++) {
      const name = tokens[i] ?? "";
      const odd = (kinds[i] ?? "normal") !== "normal";
      const other = others[i] !== undefined && others[i] !== name;
      const word = h(
        "bdi",
        { role: "option", class: odd ? "lt-word lt-odd" : "lt-word", "data-at": i },
        (odd ? name : running(name)) || "\u2205",
        other && h("span", { class: "lt-quiet" }, `|${running(others[i]!).trim()}`),
      );
      paint(word, values[i]!, most, i === query, theme);
      word.title = Number.isNaN(values[i]!) ? "no choice" : `${name}${subscript(i)} ${small(values[i]!)}`;
      setProps(word, { id: i === query ? this.id : null, "aria-selected": String(i === query) });
      words.push(word);
    }
    words.push(more(values.length - to, "after"));
    this.text.replaceChildren(...words.filter((w) => w !== null));
    this.text.setAttribute("aria-label", `Queries: choose one. Now ${tokens[query] ?? ""} ${query}`);
    this.text.setAttribute("aria-activedescendant", this.id);
  }

  key(event: KeyboardEvent): boolean {
    if (event.altKey || event.ctrlKey || event.metaKey) return false;
    const goals: Record<string, number> = {
      ArrowLeft: this.cursor - 1,
      ArrowRight: this.cursor + 1,
      PageUp: this.cursor - 5,
      PageDown: this.cursor + 5,
      Home: 0,
      End: this.last,
    };
    const goal = goals[event.key];
    if (goal === undefined) return false;
    this.choose(Math.max(0, Math.min(this.last, goal)));
    return true;
  }
}

function more(n: number, where: string): Node | null {
  return n > 0 ? h("span", { class: "lt-quiet" }, ` \u2026 ${n} tokens ${where} `) : null;
}

function paint(word: HTMLElement, value: number, most: number, chosen: boolean, theme: Theme): void {
  word.classList.toggle("lt-query", chosen);
  const share = most > 0 && !Number.isNaN(value) ? value / most : 0;
  word.classList.toggle("lt-unseen", Number.isNaN(value));
  word.classList.toggle("lt-much", share > 0.5);
  const top = theme.sequential.length - 1;
  // The paper's end of the scale is left out: an underline must be seen.
  const shade = theme.sequential[Math.round((0.15 + (theme.dark ? 0.85 : BEHIND_TEXT + 0.1) * share) * top)];
  const faint = shade && luminance(shade) > 0.9 ? mix(shade, theme.ink3, 0.3) : shade;
  word.style.setProperty("--lt-share", share > 0.02 && faint ? css(faint) : "transparent");
}

/** Statistics of both heads side by side, and what changed. */
export function statisticsTable(data: ComparisonData, { left, right }: Pair, narrow: boolean): HTMLElement {
  const names = data.facts.statistics.slice(0, narrow ? FEW_STATISTICS : undefined);
  const rows = names.map((name, i) => {
    const [a, b] = [data.statistic(0, left, i), data.statistic(1, right, i)];
    const text = (v: number) => weight(v, Math.abs(v) >= 10 ? 1 : 2);
    const d = b - a;
    const rounded = Number.isNaN(d)
      ? "\u2013"
      : Math.abs(d) < 0.005
        ? "same"
        : `${d < 0 ? "\u2212" : "+"}${text(Math.abs(d))}`;
    return h(
      "tr",
      {},
      h("th", { scope: "row" }, name),
      h("td", {}, text(a)),
      h("td", {}, text(b)),
      h("td", { class: rounded === "same" ? "lt-quiet" : "" }, rounded),
    );
  });
  const head = h(
    "tr",
    {},
    h("th", {}),
    h("th", { scope: "col" }, "A"),
    h("th", { scope: "col" }, "B"),
    h("th", { scope: "col" }, "B \u2212 A"),
  );
  return h(
    "table",
    { class: "lt-stats-table", "aria-label": "Statistics of both heads" },
    h("thead", {}, head),
    h("tbody", {}, ...rows),
  );
}
