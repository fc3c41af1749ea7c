// Which pairs lie farthest apart, or nearest: a list to choose from.
// In: ranked pairs. Out: the chosen one. Few rows in the page; more on request.
import { type Cleanup, h, setProps } from "../shared/dom";
import { count, weight } from "../shared/format";
import { type ComparisonData, headName, type Pair, sameHead } from "./data";

export interface Entry {
  readonly pair: Pair;
  readonly value: number;
}

let views = 0;

export class ListView {
  readonly element = h("div", { class: "lt-ranking" });
  private readonly heading = h("h4", {});
  private readonly rows = h("div", {
    role: "listbox",
    tabindex: 0,
    "data-region": "list",
    class: "lt-ranks",
  });
  private readonly turn = h("button", { type: "button", class: "lt-link" });
  private readonly more = h("button", { type: "button", class: "lt-link" });
  private readonly id = `lt-list-${++views}`;
  private entries: readonly Entry[] = [];
  private reversed = false;
  private shown = 0;
  private chosen = -1;
  private again: () => void = () => undefined;

  constructor(
    cleanup: Cleanup,
    private readonly choose: (pair: Pair) => void,
  ) {
    this.element.append(this.heading, this.rows, h("div", { class: "lt-ranks-more" }, this.more, this.turn));
    cleanup.on(this.turn, "click", () => {
      this.reversed = !this.reversed;
      this.again();
    });
    cleanup.on(this.more, "click", () => {
      this.shown *= 2;
      this.again();
    });
    cleanup.on<MouseEvent>(this.rows, "click", (e) => {
      const row = (e.target as HTMLElement).closest<HTMLElement>("[data-at]");
      if (row) this.choose(this.entries[Number(row.dataset.at)]!.pair);
    });
  }

  show(
    data: ComparisonData,
    ranked: readonly Entry[],
    now: Pair,
    look: { alike: boolean; most: number; start: number; nearFirst: boolean },
  ): void {
    this.again = () => this.show(data, ranked, now, look);
    const highFirst = look.nearFirst === look.alike;
    this.entries = this.reversed === highFirst ? [...ranked].reverse() : ranked;
    if (this.shown < look.start) this.shown = look.start;
    const near = look.nearFirst !== this.reversed;
    const names =
      data.facts.mode === "traces" ? ["Least changed", "Most changed"] : ["Most alike", "Least alike"];
    const allSame = !look.alike && ranked.length > 0 && ranked.every((e) => e.value === 0);
    this.heading.replaceChildren(
      h("b", {}, allSame ? "Nothing changed" : names[near ? 0 : 1]!),
      h("span", {}, allSame ? "all heads are the same" : `of ${count(ranked.length)}, click to see it`),
    );
    this.chosen = this.entries.findIndex(
      ({ pair }) => sameHead(pair.left, now.left) && sameHead(pair.right, now.right),
    );
    this.rows.replaceChildren(
      ...this.entries.slice(0, this.shown).map((entry, i) => this.row(data, entry, i, look.most)),
    );
    setProps(this.rows, {
      "aria-label": this.heading.textContent,
      "aria-activedescendant":
        this.chosen >= 0 && this.chosen < this.shown ? `${this.id}-${this.chosen}` : null,
    });
    this.rows.hidden = ranked.length === 0;
    this.turn.textContent = names[near ? 1 : 0]!.replace(/^./, (c) => c.toLowerCase());
    this.turn.hidden = ranked.length < 2 || allSame;
    this.more.hidden = this.shown >= this.entries.length || allSame;
    this.more.textContent = "more";
    this.element.hidden = ranked.length === 0;
  }

  key(event: KeyboardEvent): boolean {
    if (event.altKey || event.ctrlKey || event.metaKey) return false;
    const last = Math.min(this.shown, this.entries.length) - 1;
    const goals: Record<string, number> = {
      ArrowUp: this.chosen - 1,
      ArrowDown: this.chosen + 1,
      Home: 0,
      End: last,
    };
    const goal = goals[event.key];
    if (goal === undefined || last < 0) return false;
    this.choose(this.entries[Math.max(0, Math.min(last, goal))]!.pair);
    return true;
  }

  private row(data: ComparisonData, { pair, value }: Entry, at: number, most: number): HTMLElement {
    const names =
      data.facts.mode === "layers"
        ? `${headName(pair.left)} \u2013 ${headName(pair.right)}`
        : headName(pair.right);
    const bar = h("i", {});
    bar.style.width = `${Math.max(0, Math.min(1, value / most)) * 100}%`;
    return h(
      "div",
      {
        role: "option",
        id: `${this.id}-${at}`,
        class: "lt-rank",
        "data-at": at,
        "aria-selected": String(at === this.chosen),
      },
      h("span", { class: "lt-rank-name" }, names),
      h("span", { class: "lt-rank-words lt-quiet" }, data.name(1, pair.right)),
      h("span", { class: "lt-track", "aria-hidden": "true" }, bar),
      h("b", { class: "lt-number" }, weight(value, most < 0.05 ? 4 : 3)),
    );
  }
}
