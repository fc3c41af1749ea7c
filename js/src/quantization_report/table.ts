// The table of candidates: every figure that was measured, one row each, the base last; and one row per text.
// In: data, the recommended and the chosen candidate. Out: a table; which candidate was chosen.
import { typeBackground } from "../architecture_tree/colours";
import { h } from "../shared/dom";
import { count, weight } from "../shared/format";
import type { Theme } from "../shared/theme";
import { type Choice, isMeasured, type ReportData, type Row } from "./data";
import { figure, fixed, percent, size, speed, speedDetails, spread } from "./words";

interface Column {
  readonly name: string;
  readonly look?: string;
  /** Left out where there is little room. */
  readonly minor?: boolean;
  readonly title: string;
  cell(row: Row): Node | string;
  details?(row: Row): string;
}

const COLUMNS: readonly Column[] = [
  { name: "size", title: "Bytes of the file", cell: (r) => size(r.bytes), details: (r) => exact(r.bytes) },
  {
    name: "bits/weight",
    minor: true,
    title: "Bits of all tensors by all weights, not by the type\u2019s name",
    cell: (r) => fixed(r.bits_per_weight, 2),
  },
  {
    name: "KL to base",
    title: "Mean KL divergence from the base, nats per token; \u00b1 95 % over text blocks",
    cell: (r) =>
      h("span", {}, h("b", {}, figure(r.kl)), h("span", { class: "lt-quiet" }, ` ${spread(r.kl_ci)}`)),
    details: (r) => `99.9 % of tokens below ${figure(r.kl_999)}, largest ${figure(r.kl_max)}`,
  },
  {
    name: "worst 1 %",
    minor: true,
    title: "One token in a hundred has a KL divergence above this",
    cell: (r) => figure(r.kl_99),
  },
  {
    name: "perplexity",
    title: "Of the text; \u00d7 = by that of the base",
    cell: (r) => fixed(r.ppl, 2),
    details: (r) =>
      `${figure(r.ppl_ratio)} ${r.ppl_ratio_error === null ? "" : `\u00b1 ${figure(r.ppl_ratio_error)} `}times that of the base`,
  },
  {
    name: "same top token",
    title: "Share of tokens whose likeliest successor stayed",
    cell: (r) => percent(r.same_top),
    details: (r) =>
      `\u00b1 ${percent(r.same_top_error)}; RMS of the change in probability ${percent(r.rms_dp)}`,
  },
  {
    name: "asked for, got",
    minor: true,
    look: "lt-qr-got",
    title: "Types of the tensors that the file really has",
    cell: (r) => h("span", { class: "lt-quiet" }, r.got || "\u2013"),
  },
  {
    name: "speed",
    title: "Decoding on this machine",
    cell: (r) => h("span", { class: r.decode_tps === null ? "lt-quiet" : "" }, speed(r)),
    details: speedDetails,
  },
];

const exact = (value: number | null) => (value === null ? "" : `${count(value)} bytes`);

/** The rows of the table, made anew; `narrow` leaves the explanatory columns out. */
export function makeTable(
  data: ReportData,
  choice: Choice | null,
  selected: string | null,
  theme: Theme,
  narrow: boolean,
  choose: (name: string) => void,
): HTMLElement {
  const columns = COLUMNS.filter((c) => !(narrow && c.minor));
  const head = h(
    "tr",
    {},
    h("th", { scope: "col" }, "candidate"),
    ...columns.map((c) => h("th", { scope: "col", class: "lt-number", title: c.title }, c.name)),
  );
  const rows = data.facts.rows.map((row) => {
    const mine = choice !== null && row.name === choice.name;
    const name = h(
      "button",
      {
        type: "button",
        class: "lt-qr-pick",
        "aria-pressed": String(row.name === selected),
        "data-name": row.name,
      },
      swatch(row, theme),
      h("bdi", { title: row.name }, row.name),
      mine && h("span", { class: "lt-quiet" }, " recommended"),
      row.status !== "done" && isMeasured(row) && h("span", { class: "lt-quiet" }, ` ${stateWords(row)}`),
      !mine && choice?.tie.includes(row.name) && h("span", { class: "lt-quiet" }, " tie"),
    );
    name.addEventListener("click", () => choose(row.name));
    const first = h("th", { scope: "row" }, name);
    const state = `${mine ? "lt-qr-best" : ""} ${row.name === selected ? "lt-qr-chosen" : ""}`.trim();
    if (isMeasured(row))
      return h(
        "tr",
        { class: state },
        first,
        ...columns.map((c) =>
          h("td", { class: `lt-number ${c.look ?? ""}`, title: c.details?.(row) ?? null }, c.cell(row)),
        ),
      );
    const words = row.error ? h("span", { class: "lt-qr-why" }, row.error) : null;
    return h(
      "tr",
      { class: `${state} lt-qr-${row.status}`.trim() },
      first,
      h("td", { colspan: columns.length }, h("b", {}, stateWords(row)), words),
    );
  });
  return h(
    "table",
    { class: "lt-qr-table" },
    h("thead", {}, head),
    h("tbody", {}, ...rows, baseRow(data, columns)),
  );
}

function stateWords(row: Row): string {
  const so = isMeasured(row);
  if (row.status === "running") return so ? "so far" : "is being measured \u2026";
  if (row.status === "cancelled") return so ? "in part" : "stopped";
  return row.status === "failed" ? "failed: " : row.status;
}

function baseRow(data: ReportData, columns: readonly Column[]): HTMLElement {
  const { base } = data.facts;
  const known: Record<string, string> = {
    size: size(base.bytes),
    "bits/weight": fixed(base.bits_per_weight, 2),
    "KL to base": "0",
    "worst 1 %": "0",
    perplexity: fixed(base.perplexity, 2),
    "same top token": "100\u202f%",
    speed: base.decode_tps ? `${count(base.decode_tps)} tokens/s` : "",
  };
  const cells = columns.map((c) => h("td", { class: "lt-number" }, known[c.name] ?? ""));
  return h(
    "tr",
    { class: "lt-qr-base" },
    h("th", { scope: "row" }, h("bdi", { title: base.name }, base.name), ", the base"),
    ...cells,
  );
}

function swatch(row: Row, theme: Theme): HTMLElement {
  const e = h("i", { class: "lt-qr-swatch", "aria-hidden": "true" });
  e.style.background = typeBackground(row, theme);
  return e;
}

/** Every candidate on every text; null where there is one text only. */
export function makeTexts(data: ReportData): HTMLElement | null {
  const { texts } = data.facts;
  const names = [...new Set(texts.map((t) => t.text))];
  if (names.length < 2) return null;
  const head = h(
    "tr",
    {},
    h("th", { scope: "col" }, "KL by text"),
    ...names.map((n) => h("th", { scope: "col", class: "lt-number" }, n)),
  );
  const rows = data.measured.map((row) =>
    h(
      "tr",
      {},
      h("th", { scope: "row" }, h("bdi", { title: row.name }, row.name)),
      ...names.map((name) => {
        const own = texts.find((t) => t.candidate === row.name && t.text === name);
        const title = own
          ? `same top token ${percent(own.same_top)}, perplexity \u00d7 ${weight(own.ppl_ratio ?? Number.NaN)}`
          : null;
        const error = own ? spread(own.kl_error) : "";
        return h(
          "td",
          { class: "lt-number", title },
          own ? figure(own.kl) : "\u2013",
          h("span", { class: "lt-quiet" }, ` ${error}`),
        );
      }),
    ),
  );
  return h("table", { class: "lt-qr-table" }, h("thead", {}, head), h("tbody", {}, ...rows));
}
