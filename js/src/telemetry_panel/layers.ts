// Where the time of a prompt goes: a bar for each layer, a line for each kind of operation, both of parts by what they belong to.
// In: OperationTimes. Out: a plot, DOM, words.
import { h } from "../shared/dom";
import { count } from "../shared/format";
import type { Plot } from "./chart";
import type { OperationTimes } from "./data";
import { figures, percent, time } from "./words";

/** Operations that have a line of their own. */
const LINES = 8;

type Bar = OperationTimes["layers"][number];

/** Operations take microseconds. */
const short = (ms: number): string =>
  ms > 0 && ms < 0.1 ? `${figures(1000 * ms, 2)}\u202f\u00b5s` : time(ms);

const sum = (values: readonly number[]) => values.reduce((a, b) => a + b, 0);

/** The theme's tokens of kinds. */
const TOKENS: Readonly<Record<string, string>> = {
  attention: "--lt-attn",
  MLP: "--lt-mlp",
  recurrence: "--lt-ink2",
  norm: "--lt-ink3",
};

/** "L3", "embedding", "decoder output". */
export function barName(bar: Bar): string {
  const own = bar.stage === "layers" ? `L${bar.layer}` : bar.stage === "input" ? "embedding" : bar.stage;
  return bar.part === "self" ? own : `${bar.part} ${own}`;
}

/** `tone` is what the root says of a token. */
export function layersPlot(
  times: OperationTimes,
  selected: number | null,
  tone: (token: string) => string,
): Plot {
  const { layers, kinds } = times;
  return {
    xs: layers.map((_, at) => at),
    values: layers.map((bar) => sum(bar.ms)),
    bars: true,
    other: null,
    strip: null,
    atLeast: 0,
    ticks: (v) => figures(v, 2),
    stack: kinds.map((kind, k) => ({
      values: layers.map((bar) => bar.ms[k]!),
      colour: tone(TOKENS[kind] ?? "--lt-line2"),
    })),
    ringed: selected === null ? [] : layers.flatMap((bar, at) => (bar.layer === selected ? [at] : [])),
    names: (at) => (layers[at]!.layer === null ? "" : `L${layers[at]!.layer}`),
    chooses: "a layer",
    ends: [barName(layers[0]!), barName(layers[layers.length - 1]!)],
  };
}

/** What a bar says: name, and its milliseconds with their share, whole and of each kind. */
export function barLines(times: OperationTimes, at: number): [string, string][] {
  const { ms } = times.layers[at]!;
  const whole = sum(ms);
  const parts = times.kinds.map((kind, k): [string, string] => [kind, short(ms[k]!)]);
  return [["time", `${short(whole)}, ${percent(whole / times.ms)} of all`], ...parts];
}

export function legend(times: OperationTimes): HTMLElement {
  const titles: Record<string, string> = {
    norm: "norms wherever they are, those of queries and keys too",
    other: "residual sums, and what comes before and after all layers: embedding and output matrix",
  };
  const names = times.kinds.map((kind) =>
    h(
      "span",
      { title: titles[kind] ?? "" },
      h("i", { class: `lt-tp-of-${kind}`, "aria-hidden": "true" }),
      kind,
    ),
  );
  return h("div", { class: "lt-tp-parts lt-tp-kinds" }, ...names);
}

/** The costliest operations, each with its share. */
export function operationRows(times: OperationTimes): HTMLElement[] {
  const { operations, kinds } = times;
  const most = Math.max(...operations.map((own) => sum(own.ms)), 1e-9);
  const lines = operations.slice(0, LINES).map((own) => {
    const ms = sum(own.ms);
    const bar = h("span", { class: "lt-tp-op-bar", "aria-hidden": "true" });
    for (const [k, kind] of kinds.entries()) {
      if (!own.ms[k]) continue;
      const piece = h("i", { class: `lt-tp-of-${kind}`, title: `${kind} ${short(own.ms[k]!)}` });
      piece.style.width = `${(100 * own.ms[k]!) / most}%`;
      bar.append(piece);
    }
    return h(
      "div",
      { class: "lt-tp-op", role: "listitem" },
      h("bdi", { class: "lt-mono" }, own.op),
      h("span", { class: "lt-quiet" }, `\u00d7\u202f${count(own.count)}`),
      bar,
      h("span", { class: "lt-number" }, percent(ms / times.ms)),
      h("span", { class: "lt-number" }, short(ms)),
    );
  });
  const rest = operations.slice(LINES).map((own) => sum(own.ms));
  if (rest.length > 0) {
    const words = `${rest.length} more, together ${percent(sum(rest) / times.ms)}`;
    lines.push(h("div", { class: "lt-quiet", role: "listitem" }, words));
  }
  const heading = h("h3", {}, h("b", {}, "Operations"), "by their share of these times");
  return [heading, h("div", { class: "lt-tp-ops", role: "list" }, ...lines)];
}

/** The same in one line, for a picture. */
export function operationLine(times: OperationTimes): string {
  const own = times.operations.slice(0, 5).map((o) => `${o.op} ${percent(sum(o.ms) / times.ms)}`);
  return own.join(" \u00b7 ");
}
