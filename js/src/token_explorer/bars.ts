// "What is left": the likeliest tokens before and after the chain on a square-root axis, and the rest counted.
// In: data, a result. Out: DOM rows that are buttons; a press chooses that token.
import { type Cleanup, h, setProps } from "../shared/dom";
import { count, probability, shorten } from "../shared/format";
import type { Result } from "./chain";
import type { ExplorerData } from "./data";
import { kindWords, NAMES } from "./words";

const TICKS: readonly number[] = [0.01, 0.1, 0.25, 0.5, 0.75];
/** Where there is little room. */
const FEW: readonly number[] = [0.05, 0.5];

interface Row {
  readonly element: HTMLButtonElement;
  readonly word: HTMLElement;
  readonly model: HTMLElement;
  readonly own: HTMLElement;
  readonly thin: HTMLElement;
  readonly solid: HTMLElement;
  readonly last: HTMLElement;
  id: number;
}

/** Share of the axis that a probability takes. */
export function along(p: number, most: number): number {
  return Math.sqrt(Math.min(1, p / most));
}

export class Bars {
  readonly element = h("div", { class: "lt-te-bars" });
  private readonly axis = h("div", { class: "lt-te-axis", "aria-hidden": "true" });
  private readonly lines = h("div", { class: "lt-te-lines", "aria-hidden": "true" });
  private readonly list = h("div", { class: "lt-te-list", role: "group", "aria-label": "Likeliest tokens" });
  private readonly rest = h("span", { class: "lt-quiet" });
  private readonly entropy = h("span", { class: "lt-quiet" });
  private readonly rows: Row[] = [];
  private ticksFor = "";

  constructor(
    private readonly cleanup: Cleanup,
    private readonly choose: (id: number) => void,
  ) {
    this.element.append(
      h(
        "div",
        { class: "lt-te-row lt-te-top lt-quiet" },
        h("span", {}),
        this.axis,
        h("span", { class: "lt-number" }, "model"),
        h("span", { class: "lt-number" }, "after"),
      ),
      h("div", { class: "lt-te-table" }, this.lines, this.list),
      h("div", { class: "lt-te-row lt-te-rest" }, h("span", {}), this.rest, this.entropy),
    );
  }

  /** `next` is the token that the shown continuation takes here; null = none. */
  show(
    data: ExplorerData,
    node: number,
    result: Result,
    rows: number,
    next: number | null,
    live: boolean,
    few: boolean,
  ): void {
    const d = data.chain(node)!.distribution;
    const n = Math.min(rows, d.size);
    const ids = [...d.order.subarray(0, n)];
    if (next !== null && next < d.size && !ids.includes(next)) ids[n - 1] = next; // what was written is always seen
    const most = Math.max(d.probabilities[d.order[0]!]!, result.probability(result.order[result.left[0]]!));
    this.showAxis(most, few);
    while (this.rows.length < ids.length) this.rows.push(this.makeRow());
    this.rows.forEach((row, i) => {
      row.element.hidden = i >= ids.length;
      if (i < ids.length) fill(row, data, ids[i]!, d.probabilities[ids[i]!]!, result, most, next, live);
    });
    let held = 0;
    for (const id of ids) held += d.probabilities[id]!;
    const more = d.size - ids.length;
    this.rest.textContent =
      more > 0 ? `and ${count(more)} more tokens, together ${probability(Math.max(0, 1 - held))}` : "";
    this.entropy.textContent = `entropy ${d.entropy.toFixed(2)} bits`;
  }

  private showAxis(most: number, few: boolean): void {
    const key = `${most.toFixed(3)} ${few}`;
    if (key === this.ticksFor) return;
    this.ticksFor = key;
    const all = few ? FEW : TICKS;
    const shown = all.filter((t) => t <= most && (t > 0.01 || most > 0.02));
    const ticks = shown.length > 0 ? shown : [most];
    const place = (e: HTMLElement, t: number) => {
      e.style.left = `${100 * along(t, most)}%`;
      return e;
    };
    this.axis.replaceChildren(...ticks.map((t) => place(h("span", {}, probability(t).replace(".0", "")), t)));
    this.lines.replaceChildren(...ticks.map((t) => place(h("i", {}), t)));
  }

  private makeRow(): Row {
    const word = h("bdi", { class: "lt-mono lt-te-token" });
    const thin = h("i", { class: "lt-te-thin" });
    const solid = h("i", { class: "lt-te-solid" });
    const own = h("span", { class: "lt-te-track" }, thin, solid);
    const model = h("span", { class: "lt-number lt-quiet" });
    const last = h("span", { class: "lt-number lt-te-after" });
    const element = h("button", { type: "button", class: "lt-te-row" }, word, own, model, last);
    const row: Row = { element, word, own, thin, solid, model, last, id: -1 };
    this.cleanup.on(element, "click", () => {
      if (element.getAttribute("aria-disabled") !== "true") this.choose(row.id);
    });
    this.list.append(element);
    return row;
  }
}

function fill(
  row: Row,
  data: ExplorerData,
  id: number,
  p: number,
  result: Result,
  most: number,
  next: number | null,
  live: boolean,
): void {
  const cut =
    result.cutBy(id) ?? (result.probability(id) === 0 && result.rank(id) === 0 ? "temperature" : null);
  const after = result.probability(id);
  const text = data.word(id);
  const kind = kindWords(data.kind(id), text);
  row.id = id;
  row.word.textContent = shorten(text);
  row.word.classList.toggle("lt-odd", kind !== "");
  row.element.className = `lt-te-row${cut ? ` lt-te-cut lt-te-${cut}` : ""}${id === next ? " lt-te-next" : ""}`;
  row.thin.style.width = `${100 * along(p, most)}%`;
  row.solid.style.width = cut ? "0" : `${100 * along(after, most)}%`;
  row.model.textContent = probability(p);
  row.last.textContent = cut ? NAMES[cut] : probability(after);
  const fate = cut ? `cut by ${NAMES[cut]}` : `${probability(after)} after the chain`;
  const words = `${text}${kind ? `, ${kind}` : ""}, id ${id}: model ${probability(p)}, ${fate}`;
  const title = live ? `${words}. Click takes it` : words;
  setProps(row.element, {
    "aria-label": words,
    title,
    "aria-disabled": !live && data.child(0, id) === null ? "true" : null,
  });
}
