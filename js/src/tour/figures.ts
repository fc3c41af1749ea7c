// The six drawings of a tour: tokens, vectors, matrices, bars, angles, groups of heads.
// In: figures as Python made them, a theme, the room in px. Out: elements. Nothing is computed here but places.
import { css } from "../shared/colour";
import { h, s } from "../shared/dom";
import { bound, count, shorten, smallWeight, weight } from "../shared/format";
import type { Theme } from "../shared/theme";
import type { Bars, Chips, Dials, Figure, Groups, Matrix, Strips } from "./data";

const CELL = 22;
const LABEL = 96;
const DIAL = 36;

export function draw(figure: Figure, theme: Theme, room: number): HTMLElement {
  switch (figure.kind) {
    case "chips":
      return chips(figure);
    case "strips":
      return strips(figure, theme);
    case "matrix":
      return matrix(figure, theme, room);
    case "bars":
      return bars(figure);
    case "dials":
      return dials(figure);
    case "groups":
      return groups(figure, room);
  }
}

const box = (kind: string, label: string, ...children: (Node | string)[]) =>
  h("div", { class: `lt-to-figure lt-to-${kind}`, role: "group", "aria-label": label }, ...children);

const caption = (text: string) => h("p", { class: "lt-to-what lt-quiet" }, text);

/** A colour of a scale, 0 to 1. */
const shade = (scale: Theme["sequential"], at: number) =>
  css(scale[Math.round(255 * Math.max(0, Math.min(1, at)))]!);

const signed = (theme: Theme, value: number, limit: number) =>
  shade(theme.diverging, limit > 0 ? 0.5 + value / (2 * limit) : 0.5);

function chips(figure: Chips): HTMLElement {
  const tokens = figure.tokens.map((token, i) => {
    const own = h("bdi", { class: "lt-to-chip lt-mono", title: `token ${i}` }, token);
    own.classList.toggle("lt-to-marked", figure.marked.includes(i));
    return own;
  });
  const list = h("div", { class: "lt-to-tokens" }, ...tokens);
  return box("chips", `${figure.tokens.length} tokens`, list);
}

function strips(figure: Strips, theme: Theme): HTMLElement {
  const rows = figure.rows.map((row) => {
    const n = row.cells.length;
    const cells = row.cells.map((value, i) =>
      s("rect", { x: i, y: 0, width: 1.02, height: 1, fill: signed(theme, value, figure.limit) }),
    );
    const picture = s(
      "svg",
      { viewBox: `0 0 ${n} 1`, preserveAspectRatio: "none", class: "lt-to-strip", "aria-hidden": "true" },
      ...cells,
    );
    const more = row.size > row.first.length ? " \u2026" : "";
    return h(
      "div",
      { class: "lt-to-row" },
      h("span", { class: "lt-to-sign" }, row.sign),
      h("bdi", { class: "lt-to-label lt-mono" }, row.label),
      h(
        "span",
        { class: "lt-to-numbers lt-quiet" },
        `${row.first.join(", ")}${more} \u00b7 length ${row.norm}`,
      ),
      picture,
    );
  });
  const most = Math.max(...figure.rows.map((row) => row.size / Math.max(row.cells.length, 1)));
  const sizes = [...new Set(figure.rows.map((row) => row.size))];
  const words = `${sizes.map(count).join(" and ")} numbers${most > 1 ? ", each cell the largest of a few" : ""}`;
  return box(
    "strips",
    figure.rows.map((row) => `${row.label}: ${row.size} numbers, length ${row.norm}`).join("; "),
    ...rows,
    legend(theme.diverging, figure.limit, true, words),
  );
}

function legend(scale: Theme["sequential"], limit: number, both: boolean, words: string): HTMLElement {
  const stops = Array.from({ length: 9 }, (_, i) => css(scale[Math.round((255 * i) / 8)]!));
  const bar = h("div", { class: "lt-ramp" });
  bar.style.background = `linear-gradient(to right, ${stops.join(", ")})`;
  const end = Number(limit.toPrecision(2));
  const ticks = both ? [-end, 0, end] : [0, end];
  const marks = ticks.map((tick, i) => {
    const place = i === 0 ? "lt-begin" : i === ticks.length - 1 ? "lt-end" : "";
    const own = h("span", { class: place }, bound(tick));
    own.style.left = `${(100 * i) / (ticks.length - 1)}%`;
    return own;
  });
  return h(
    "div",
    { class: "lt-to-legend" },
    h("div", { class: "lt-scale" }, bar, h("div", { class: "lt-ticks" }, ...marks)),
    h("span", { class: "lt-quiet" }, words),
  );
}

let patterns = 0;

function matrix(figure: Matrix, theme: Theme, room: number): HTMLElement {
  const { rows, columns, cells, limit } = figure;
  const cell = Math.max(5, Math.min(CELL, Math.floor((room - LABEL - 4) / columns.length)));
  const top = cell >= 10 ? 74 : 16;
  const width = LABEL + cell * columns.length + 2;
  const height = top + cell * rows.length + 2;
  const id = `lt-to-hatch-${++patterns}`;
  const line = { stroke: css(theme.line2), "stroke-width": 1 };
  const hatch = s(
    "pattern",
    { id, width: 5, height: 5, patternUnits: "userSpaceOnUse", patternTransform: "rotate(45)" },
    s("line", { x1: 0, y1: 0, x2: 0, y2: 5, ...line }),
  );
  const parts: Element[] = [s("defs", {}, hatch)];
  const text = (words: string, props: Record<string, string | number>) => {
    const own = s("text", { ...props, class: "lt-mono" });
    own.textContent = words;
    return own;
  };
  columns.forEach((token, j) => {
    const x = LABEL + cell * (j + 0.5);
    if (cell >= 10)
      parts.push(text(shorten(token), { transform: `translate(${x + 3.5} ${top - 5}) rotate(-90)` }));
    else if (j % 4 === 0) parts.push(text(String(j), { x, y: top - 5, "text-anchor": "middle" }));
  });
  const every = Math.ceil(11 / cell);
  rows.forEach((token, i) => {
    const y = top + cell * i;
    const marked = figure.mark.includes(i);
    if (marked || (i % every === 0 && !figure.mark.some((m) => Math.abs(m - i) < every)))
      parts.push(
        text(shorten(token), {
          x: LABEL - 6,
          y: y + cell / 2 + 3.5,
          "text-anchor": "end",
          "font-weight": marked ? 700 : 400,
        }),
      );
    columns.forEach((column, j) => {
      const value = cells[i]![j]!;
      const fill =
        value === null
          ? `url(#${id})`
          : figure.scale === "signed"
            ? signed(theme, value, limit)
            : shade(theme.sequential, limit > 0 ? value / limit : 0);
      const name = s("title", {});
      const shown =
        value === null ? "masked" : figure.scale === "signed" ? weight(value, 2) : smallWeight(value);
      name.textContent = `${token} \u2192 ${column}: ${shown}`;
      parts.push(s("rect", { x: LABEL + cell * j, y, width: cell, height: cell, fill }, name));
    });
  });
  for (const i of figure.mark)
    parts.push(
      s("rect", {
        x: LABEL - 1,
        y: top + cell * i,
        width: cell * columns.length + 2,
        height: cell,
        fill: "none",
        stroke: css(theme.ink),
        "stroke-width": 1.5,
      }),
    );
  const picture = s("svg", { width, height, class: "lt-to-matrix-picture", "aria-hidden": "true" }, ...parts);
  const masked = cells.some((row) => row.includes(null));
  const scale = figure.scale === "signed" ? theme.diverging : theme.sequential;
  return box(
    "matrix",
    `${rows.length} rows and ${columns.length} columns`,
    picture,
    legend(
      scale,
      limit,
      figure.scale === "signed",
      `row looks at column${masked ? " \u00b7 hatched: masked" : ""}`,
    ),
  );
}

function bars(figure: Bars): HTMLElement {
  const values = figure.rows.map((row) => row.value ?? 0);
  const low = Math.min(0, ...values);
  const high = Math.max(0, ...values);
  const span = high - low || 1;
  const zero = (-100 * low) / span;
  const rows = figure.rows.map((row, i) => {
    const value = row.value ?? 0;
    const bar = h("i", {});
    bar.style.left = `${value < 0 ? zero + (100 * value) / span : zero}%`;
    bar.style.width = `${(100 * Math.abs(value)) / span}%`;
    bar.hidden = row.value === null;
    const axis = h("u", {});
    axis.style.left = `${zero}%`;
    return h(
      "div",
      { class: `lt-to-bar${figure.marked.includes(i) ? " lt-to-best" : ""}` },
      h("bdi", { class: "lt-to-bar-label lt-mono" }, row.label),
      h("span", { class: "lt-to-track" }, axis, bar),
      h("span", { class: `lt-number${row.value === null ? " lt-quiet" : ""}` }, row.text),
    );
  });
  return box("bars", figure.what, caption(figure.what), ...rows);
}

function dials(figure: Dials): HTMLElement {
  const r = DIAL / 2;
  const faces = figure.angles.map((angle, i) => {
    const [x, y] = [r + (r - 4) * Math.cos(angle), r - (r - 4) * Math.sin(angle)];
    const picture = s(
      "svg",
      { width: DIAL, height: DIAL, "aria-hidden": "true" },
      s("circle", { cx: r, cy: r, r: r - 1.5, class: "lt-to-face" }),
      s("line", { x1: r, y1: r, x2: DIAL - 4, y2: r, class: "lt-to-start" }),
      s("line", { x1: r, y1: r, x2: x, y2: y, class: "lt-to-hand" }),
    );
    const degrees = `${Math.round((angle * 180) / Math.PI)}\u00b0`.replace("-", "\u2212");
    return h(
      "div",
      { class: "lt-to-dial" },
      picture,
      h("span", {}, degrees),
      h("span", { class: "lt-quiet" }, figure.turns[i] ?? ""),
    );
  });
  const note = figure.turns.length > 0 ? ". Grey: one whole turn in so many tokens" : "";
  return box(
    "dials",
    figure.what,
    h("div", { class: "lt-to-dial-row" }, ...faces),
    caption(`${figure.what}${note}`),
  );
}

function groups(figure: Groups, room: number): HTMLElement {
  const { heads, kv_heads, head } = figure;
  const share = heads / kv_heads;
  const pitch = Math.max(5, Math.min(48, Math.floor((room - 60) / heads)));
  const named = pitch >= 24;
  const [left, tall, gap] = [56, 22, 46];
  const parts: Element[] = [];
  const label = (words: string, x: number, y: number, anchor = "middle") => {
    const own = s("text", { x, y, "text-anchor": anchor });
    own.textContent = words;
    return own;
  };
  const own = Math.floor(head / share);
  for (let i = 0; i < heads; i++) {
    const x = left + pitch * i;
    const centre = left + pitch * share * (Math.floor(i / share) + 0.5);
    const mine = i === head ? " lt-to-mine" : Math.floor(i / share) === own ? " lt-to-kin" : "";
    parts.push(
      s("line", { x1: x + pitch / 2, y1: tall + 2, x2: centre, y2: tall + gap, class: `lt-to-wire${mine}` }),
      s("rect", { x: x + 1, y: 1, width: pitch - 2, height: tall, rx: 3, class: `lt-to-head${mine}` }),
    );
    if (named) parts.push(label(`H${i}`, x + pitch / 2, 16));
  }
  for (let i = 0; i < kv_heads; i++) {
    const width = Math.max(pitch - 2, Math.min(pitch * share - 6, 90));
    const centre = left + pitch * share * (i + 0.5);
    const mine = i === own ? " lt-to-mine" : "";
    parts.push(
      s("rect", {
        x: centre - width / 2,
        y: tall + gap,
        width,
        height: tall,
        rx: 3,
        class: `lt-to-kv${mine}`,
      }),
    );
    if (width >= 24) parts.push(label(`K${i} V${i}`.slice(0, width >= 44 ? 9 : 2), centre, tall + gap + 15));
  }
  parts.push(label("queries", left - 8, 16, "end"), label("keys", left - 8, tall + gap + 15, "end"));
  const picture = s(
    "svg",
    { width: left + pitch * heads, height: 2 * tall + gap + 2, class: "lt-to-groups-picture" },
    ...parts,
  );
  picture.setAttribute("aria-hidden", "true");
  return box("groups", `${heads} query heads share ${kv_heads} key and value heads`, picture);
}
