// What the colours mean: groups or names with their sizes, or a scale with its ends and unit.
// In: the column that colours. Out: a row under the plate; an entry isolates its points by a double click or Enter.
import { css } from "../shared/colour";
import { type Cleanup, h } from "../shared/dom";
import { count, probability, shorten } from "../shared/format";
import type { Theme } from "../shared/theme";
import { hue, rampColour } from "./colours";
import type { Column, ColumnFacts, SpaceData } from "./data";

/** An end of a scale with as many digits as it needs. */
export function endWords(value: number, thousandths: boolean): string {
  if (thousandths) return (1000 * value).toFixed(1);
  if (Number.isInteger(value) && Math.abs(value) >= 1000) return count(value);
  return String(Number(value.toPrecision(3))).replace("-", "\u2212");
}

export class Legend {
  readonly element = h("div", { class: "lt-emb-legend" });

  constructor(cleanup: Cleanup, isolate: (code: number) => void) {
    const of = (e: Event) => (e.target as HTMLElement).closest<HTMLElement>("[data-code]")?.dataset.code;
    cleanup.on(this.element, "dblclick", (e) => {
      const code = of(e);
      if (code !== undefined) isolate(Number(code));
    });
    cleanup.on<KeyboardEvent>(this.element, "keydown", (e) => {
      const code = of(e);
      if (code === undefined || e.key !== "Enter") return;
      isolate(Number(code));
      e.preventDefault();
    });
  }

  show(
    data: SpaceData,
    facts: ColumnFacts | null,
    column: Column | null,
    isolated: number | null,
    theme: Theme,
    why: string,
  ): void {
    if (facts === null || facts.name === "cluster") this.groups(data, isolated, theme);
    else if (column === null) this.element.replaceChildren(h("span", { class: "lt-quiet" }, why));
    else if (column.kind === "name") this.names(column, isolated, theme);
    else this.scale(facts, column, theme);
  }

  private entry(code: number, name: string, size: number, i: number, on: boolean, theme: Theme): HTMLElement {
    const dot = h("i", { class: "lt-emb-dot" });
    dot.style.background = css(hue(theme, i));
    return h(
      "button",
      {
        type: "button",
        class: `lt-emb-entry${on ? " lt-on" : ""}`,
        "data-code": code,
        title: `${name}: double click shows only these`,
      },
      dot,
      h("bdi", {}, shorten(name, 30)),
      h("span", { class: "lt-quiet" }, ` ${count(size)}`),
    );
  }

  private groups(data: SpaceData, isolated: number | null, theme: Theme): void {
    const { clusters, unclustered, method, texts } = data.facts;
    if (clusters.length === 0) {
      const words =
        unclustered === null
          ? "Groups are found in UMAP's picture"
          : `No groups were found among ${count(data.n)} ${texts ? "texts" : "tokens"}`;
      this.element.replaceChildren(h("span", { class: "lt-quiet" }, words));
      return;
    }
    const entries = clusters
      .filter((g) => g.hue !== null)
      .map((g) => this.entry(g.label, g.name, g.count, g.hue!, g.label === isolated, theme));
    const share = unclustered === null ? "" : `, ${probability(unclustered)} in none`;
    const where = method === "pca" ? " in UMAP's picture" : "";
    const words = `${count(clusters.length)} groups${share} (HDBSCAN${where}) \u00b7 double click isolates one`;
    this.element.replaceChildren(...entries, h("span", { class: "lt-quiet" }, words));
  }

  private names(column: Column & { kind: "name" }, isolated: number | null, theme: Theme): void {
    const entries = column.names
      .slice(0, 8)
      .map((name, i) => this.entry(i, name, column.counts[i] ?? 0, i, i === isolated, theme));
    const rest = column.names.slice(8);
    const words = [
      rest.length > 0 ? `grey: ${count(rest.length)} more, ${rest.slice(0, 3).join(", ")}\u2026` : "",
      "double click isolates one",
    ];
    this.element.replaceChildren(
      ...entries,
      h("span", { class: "lt-quiet" }, words.filter(Boolean).join(" \u00b7 ")),
    );
  }

  private scale(facts: ColumnFacts, column: Column & { kind: "number" }, theme: Theme): void {
    const thousandths = facts.name === "drift";
    const ramp = h("div", { class: "lt-ramp" });
    const stops = Array.from({ length: 17 }, (_, i) => css(rampColour(theme, i / 16)));
    ramp.style.background = `linear-gradient(to right, ${stops.join(", ")})`;
    const tick = (v: number, at: number) => h("span", { style: `left:${at}%` }, endWords(v, thousandths));
    const middle = (column.low + column.high) / 2;
    const words = `${facts.label.toLowerCase()}${facts.unit ? ` = ${facts.unit}` : ""}${thousandths ? ", in thousandths" : ""}`;
    this.element.replaceChildren(
      h(
        "div",
        { class: "lt-scale" },
        ramp,
        h("div", { class: "lt-ticks" }, tick(column.low, 0), tick(middle, 50), tick(column.high, 100)),
      ),
      h(
        "span",
        { class: "lt-quiet" },
        `${words} \u00b7 98\u202f% lie between the ends \u00b7 grey = no value`,
      ),
    );
  }
}
