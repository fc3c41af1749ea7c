// Beside the table: the likeliest words of the cell that is read, and the answer's way through the layers.
// In: data, a row, a token. Out: DOM. Text is only ever set as text.
import { h, s } from "../shared/dom";
import { bound, count, probability, shorten, subscript } from "../shared/format";
import type { LensData, Push } from "./data";
import { pushName, rowName, rowTitle, signed, strongest, tokenName } from "./words";

/** A curve's height and margins. */
const [TALL, LEFT, RIGHT, TOP, UNDER] = [104, 4, 40, 8, 18];

export class Panel {
  readonly element = h("div", { class: "lt-ll-panel" });
  private readonly title = h("h3", {});
  private readonly list = h("div", { class: "lt-ll-list" });
  private readonly curves = h("div", {});
  private readonly sentence = h("p", { class: "lt-ll-sentence" });
  /** What the panel says, for screen readers and pictures. */
  words = "";
  /** The same for a picture: a heading, then name, value and place of each line. */
  heading = "";
  notes: (readonly [string, string, string])[] = [];

  constructor() {
    this.element.append(this.title, this.list, this.curves, this.sentence);
  }

  show(data: LensData, row: number, position: number, chosen: boolean, width: number): void {
    const token = h(
      "span",
      { class: `lt-mono${chosen ? " lt-ll-mine" : ""}` },
      shorten(data.facts.tokens[position] ?? "", 24),
      h("span", { class: "lt-ll-sub" }, subscript(position)),
    );
    this.title.replaceChildren(h("b", {}, `${rowTitle(row)}, at `), token);
    const cell = data.cell(row, position);
    const answer = data.answer(position);
    this.list.replaceChildren();
    this.curves.replaceChildren();
    this.heading = `${rowTitle(row)}, at ${tokenName(data, position)}`;
    this.words = `${this.heading}: `;
    this.notes = [];
    if (!cell || answer === null) {
      const why = data.has(position) ? "not measured for this row" : "not read yet";
      this.list.append(h("span", { class: "lt-quiet" }, why));
      this.words += why;
    } else {
      cell.ids.forEach((id, i) => {
        const p = cell.probabilities[i]!;
        const bar = h("i", {});
        this.notes.push([shorten(data.word(id), 20), probability(p), ""]);
        bar.style.width = `${100 * Math.min(1, p)}%`;
        this.list.append(
          h("bdi", { class: "lt-mono", title: `token id ${id}` }, data.word(id)),
          h("span", { class: "lt-ll-track" }, bar),
          h("span", { class: "lt-number" }, probability(p)),
        );
      });
      this.words += `${data.word(cell.ids[0]!)} ${probability(cell.probabilities[0]!)}; final answer ${data.word(answer)} ${probability(cell.answerProbability)}, rank ${count(cell.answerRank)}`;
      const rank = `rank ${count(cell.answerRank)}`;
      this.notes.push([`answer ${shorten(data.word(answer))}`, probability(cell.answerProbability), rank]);
      const heading = (more: string) =>
        h("h4", {}, h("b", { class: "lt-mono" }, data.word(answer)), `layer by layer: ${more}`);
      this.curves.append(
        heading("probability"),
        probabilityCurve(data, position, row, width),
        heading(`rank among ${count(data.facts.n_words)}`),
        rankCurve(data, position, row, width),
      );
    }
    this.saySentence(data, data.push);
  }

  /** The strongest attention and the strongest MLP, in words. */
  private saySentence(data: LensData, push: Push | null): void {
    this.sentence.hidden = push === null;
    if (!push) return;
    const { layers } = data.facts;
    const part = (values: readonly (number | null)[]) => {
      const at = strongest(values);
      return at < 0 ? null : ([layers[at]!.layer, values[at]!, layers[at]!.mixer] as const);
    };
    const [attention, mlp] = [part(push.attention), part(push.mlp)];
    const word = h("bdi", { class: "lt-mono" }, pushName(push));
    const said: (Node | string)[] = [];
    const mixer = (attention?.[2] ?? "attention").replace(/^./, (c) => c.toUpperCase());
    if (attention)
      said.push(`${mixer} in layer ${attention[0]} pushes `, word, " by ", bold(attention[1]), " logits");
    if (mlp && attention) said.push(`; the MLP of layer ${mlp[0]} adds `, bold(mlp[1]));
    if (mlp && !attention)
      said.push(`The MLP of layer ${mlp[0]} pushes `, word, " by ", bold(mlp[1]), " logits");
    this.sentence.replaceChildren(...said, ".");
    this.sentence.hidden = said.length === 0;
  }
}

const bold = (value: number) => h("b", {}, signed(value));

interface Point {
  readonly row: number;
  readonly x: number;
  readonly y: number;
}

function curve(
  data: LensData,
  row: number,
  width: number,
  ticks: readonly (readonly [number, string])[],
  value: (row: number) => number | null,
  label: string,
  name: string,
): SVGElement {
  const { rows } = data.facts;
  const right = width - RIGHT;
  const x = (at: number) => LEFT + (at / Math.max(1, rows.length - 1)) * (right - LEFT);
  const y = (share: number) => TOP + (1 - share) * (TALL - TOP - UNDER);
  const points: Point[] = rows.flatMap((r, at) => {
    const v = value(r);
    return v === null ? [] : [{ row: r, x: x(at), y: y(v) }];
  });
  const svg = s("svg", {
    width,
    height: TALL,
    class: "lt-ll-curve",
    role: "img",
    "aria-label": name,
  });
  for (const [share, text] of ticks) {
    const at = y(share);
    svg.append(
      s("line", { x1: LEFT, x2: right, y1: at, y2: at, class: "lt-ll-grid" }),
      tick(width, at + 3.5, text, "end"),
    );
  }
  const third = Math.round((rows.length - 1) / 3);
  for (const at of new Set([0, third, 2 * third, rows.length - 1])) {
    const anchor = at === 0 ? "start" : at === rows.length - 1 ? "end" : "middle";
    svg.append(tick(x(at), TALL - 3, rowName(rows[at]!), anchor));
  }
  svg.append(
    s("path", {
      d: points.map((p, i) => `${i ? "L" : "M"}${p.x.toFixed(1)} ${p.y.toFixed(1)}`).join(""),
      class: "lt-ll-line",
    }),
  );
  const mine = points.find((p) => p.row === row);
  if (!mine) return svg;
  svg.append(s("circle", { cx: mine.x, cy: mine.y, r: 4, class: "lt-ll-dot" }));
  if (label) {
    const left = mine.x > 70;
    const words = tick(
      mine.x + (left ? -7 : 7),
      Math.min(TALL - UNDER, mine.y + 14),
      label,
      left ? "end" : "start",
    );
    words.classList.add("lt-ll-mark");
    svg.append(words);
  }
  return svg;
}

function tick(x: number, y: number, text: string, anchor: string): SVGElement {
  const own = s("text", { x, y, "text-anchor": anchor, class: "lt-ll-tick" });
  own.textContent = text;
  return own;
}

function probabilityCurve(data: LensData, position: number, row: number, width: number): SVGElement {
  const value = (r: number) => data.cell(r, position)?.answerProbability ?? null;
  const ticks = [1, 0.5, 0].map((v) => [v, bound(v)] as const);
  return curve(data, row, width, ticks, value, "", "Probability of the final answer through the layers");
}

function rankCurve(data: LensData, position: number, row: number, width: number): SVGElement {
  const most = Math.log10(Math.max(10, data.facts.n_words));
  const share = (rank: number) => 1 - Math.log10(rank) / most;
  const value = (r: number) => {
    const cell = data.cell(r, position);
    return cell ? share(cell.answerRank) : null;
  };
  const names = ["1", "10", "100", "1\u202fk", "10\u202fk", "100\u202fk"];
  const ticks = names.slice(0, Math.floor(most) + 1).map((text, i) => [share(10 ** i), text] as const);
  const rank = data.cell(row, position)?.answerRank;
  const label = rank === undefined ? "" : `#${count(rank)}`;
  return curve(
    data,
    row,
    width,
    ticks,
    value,
    label,
    `Rank of the final answer through the layers, here ${label}`,
  );
}
