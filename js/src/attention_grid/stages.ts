// The stages of the locked head side by side: one crosshair through all, the same cell's value above each.
// In: a head that can be replayed, the chosen cell. Out: pictures, values, operations; the cell that is pointed at or chosen.
import { css } from "../shared/colour";
import { type Cleanup, h, setProps } from "../shared/dom";
import { smallWeight } from "../shared/format";
import type { Theme } from "../shared/theme";
import type { Cell } from "./cross";
import type { GridData, Head, Matrix } from "./data";
import type { Mode } from "./layout";
import { queryName, tokenName } from "./names";
import { diverge, edge, paintStage, shrink, stageGeometry, symmetricLimit } from "./paint_stage";
import type { Row } from "./picture";
import type { Replay } from "./replay";
import { automaticMaximum, positions, type Scale } from "./scale";
import { cellBox, StageFigure } from "./stage_figure";
import { constant, operation, sinkShare, stageValue } from "./stage_words";

/** So many cells are computed at once. */
const AT_ONCE = 256 ** 2;
/** Cells of a larger head's picture that are asked for, at most, across and down. */
const TILE = 320;
/** A picture smaller than this stands with fewer in its row. */
const LEAST = 100;
const MOST = 240;
const NUMBERS: Record<number, string> = { 3: "Three", 4: "Four", 5: "Five", 6: "Six" };

export interface StagesLook {
  readonly head: Head;
  readonly scale: Scale;
  readonly sinkAside: boolean;
  readonly theme: Theme;
  readonly ratio: number;
  /** In narrow layouts they stand two by two. */
  readonly mode: Mode;
}

export interface StagesEvents {
  choose(cell: Cell): void;
  /** The pointer is on a cell, or on none. */
  hover(cell: Cell | null): void;
  /** The picture of a head of many tokens. */
  tile(head: Head, replay: Replay, stage: string, size: Cell): Promise<Matrix>;
}

/** How many stand in one row. */
export function perRow(
  count: number,
  width: number,
  narrow: boolean,
): { each: number; gap: number; room: number } {
  const lay = (each: number) => {
    const gap = each > 4 || width < 520 ? 24 : 32;
    return { each, gap, room: Math.min(MOST, Math.floor((width - gap * (each - 1)) / each)) };
  };
  if (narrow) return lay(2);
  return [count, Math.ceil(count / 2)].map(lay).find((f) => f.room >= LEAST) ?? lay(2);
}

export class StagesView {
  readonly element = h("section", { class: "lt-stages", hidden: true });
  private readonly title = h("b", {});
  private readonly note = h("span", {});
  private readonly row = h("div", {
    class: "lt-stages-row",
    role: "group",
    tabindex: 0,
    "data-region": "detail",
  });
  private figures: StageFigure[] = [];
  private built = "";
  private width = 0;
  private data: GridData | null = null;
  private replay: Replay | null = null;
  private chosen: Cell | null = null;
  private pointed: Cell | null = null;
  private look: StagesLook | null = null;
  /** Pictures of the present head, as they came. */
  private readonly pictures = new Map<string, Matrix>();
  private readonly limits = new Map<string, number>();

  constructor(
    cleanup: Cleanup,
    private readonly events: StagesEvents,
  ) {
    this.element.append(h("h4", { class: "lt-one-line" }, this.title, this.note), this.row);
    cleanup.on<PointerEvent>(this.row, "pointermove", (e) => {
      if (e.pointerType !== "touch") this.events.hover(this.at(e));
    });
    cleanup.on(this.row, "pointerleave", () => this.events.hover(null));
    cleanup.on<MouseEvent>(this.row, "click", (e) => {
      const cell = this.at(e);
      if (cell) this.events.choose(cell);
    });
    const observer = new ResizeObserver(() => {
      if (!this.element.hidden && this.row.clientWidth !== this.width) this.draw();
    });
    observer.observe(this.row);
    cleanup.add(() => observer.disconnect());
  }

  hide(): void {
    this.element.hidden = true;
    this.replay = null;
    this.pictures.clear();
  }

  show(data: GridData, replay: Replay, chosen: Cell, look: StagesLook): void {
    const other = this.replay !== replay;
    this.data = data;
    this.replay = replay;
    this.chosen = chosen;
    this.look = look;
    if (other) {
      this.pictures.clear();
      this.limits.clear();
      this.pointed = null;
    }
    this.element.hidden = false;
    this.title.textContent = `${NUMBERS[replay.stages.length] ?? replay.stages.length} stages`;
    this.draw();
    if (other && isLarge(replay)) this.bring(replay, look.head);
  }

  /** Marks the cell that is pointed at, here or in the large matrix, and reads it out. */
  hover(cell: Cell | null): void {
    if (this.element.hidden || sameCell(cell, this.pointed)) return;
    this.pointed = cell;
    this.readOut();
  }

  /** The same for pictures; null while a stage is not there. */
  get pictured(): Row | null {
    const { figures, replay, chosen, look } = this;
    if (this.element.hidden || !replay || !chosen || !look || figures.some((f) => !f.painted)) return null;
    return {
      heading: [this.title.textContent ?? "", "the same cell in each"],
      steps: true,
      figures: figures.map((figure) => ({
        title: figure.stage,
        value: stageValue(replay, figure.stage, ...chosen),
        canvas: figure.canvas,
        boxes: figure.geometry
          ? [{ ...cellBox(figure.geometry, replay, look.ratio, chosen), thick: true }]
          : [],
        under: figure.words.textContent ?? "",
        ticks: figure.marks,
        diverging: figure.stage !== "softmax",
      })),
    };
  }

  private draw(): void {
    const { replay, data, look } = this;
    if (!replay || !data || !look) return;
    this.width = this.row.clientWidth;
    if (this.width === 0) return;
    const { each, gap, room } = perRow(replay.stages.length, this.width, look.mode === "narrow");
    this.build(replay, each);
    this.row.style.gridTemplateColumns = Array(each).fill(`${room}px`).join(` ${gap}px `);
    let limit = 1;
    for (const figure of this.figures) {
      const whole = this.picture(replay, figure.stage);
      const g = stageGeometry(replay.rows, replay.keys, room, look.ratio);
      figure.geometry = g;
      figure.element.style.setProperty(
        "--lt-picture",
        `${Math.max(g.width / look.ratio, Math.min(room, LEAST))}px`,
      );
      // The mask takes cells away and changes none, so its colours stay those of the stage before it.
      if (whole && (figure.stage !== "masked" || replay.facts.slope !== 0))
        limit = this.limit(figure.stage, whole, look);
      this.paint(figure, whole, limit, data, look);
      const mask = data.layer(look.head.layer)?.mask ?? "other";
      figure.words.replaceChildren(operation(figure.stage, replay.facts, mask));
    }
    this.readOut();
  }

  private build(replay: Replay, each: number): void {
    const key = `${replay.stages.join()} ${each}`;
    if (this.built === key) return;
    this.built = key;
    this.figures = replay.stages.map((stage) => new StageFigure(stage));
    const cells = this.figures.flatMap((figure, i) => {
      const wraps = i > 0 && i % each === 0;
      figure.element.classList.toggle("lt-stage-wraps", wraps);
      return i > 0 && !wraps
        ? [h("span", { class: "lt-stage-arrow", "aria-hidden": "true" }, "\u2192"), figure.element]
        : [figure.element];
    });
    this.row.replaceChildren(...cells);
  }

  private picture(replay: Replay, stage: string): Matrix | null {
    return this.pictures.get(stage) ?? (isLarge(replay) ? null : replay.matrix(stage));
  }

  private paint(
    figure: StageFigure,
    whole: Matrix | null,
    limit: number,
    data: GridData,
    look: StagesLook,
  ): void {
    const { geometry: g, stage } = figure;
    const { theme, ratio, scale, sinkAside } = look;
    if (!g) return;
    figure.frame.classList.toggle("lt-waiting", whole === null);
    if (!whole) {
      figure.painted = "";
      setProps(figure.canvas, { width: g.width, height: g.height });
      figure.canvas.style.width = `${g.width / ratio}px`;
      figure.canvas.style.height = `${g.height / ratio}px`;
      return;
    }
    const soft = stage === "softmax";
    const key = [
      look.head.index,
      g.width,
      g.height,
      limit,
      soft && scale,
      sinkAside,
      css(theme.paper),
      css(theme.ink),
    ];
    if (figure.painted === key.join() && this.pictures.get(stage) === whole) return;
    this.pictures.set(stage, whole);
    figure.painted = key.join();
    const matrix = shrink(whole, g.rows, g.columns);
    const place = soft ? positions(matrix, scale, sinkAside) : null;
    const rows = place && Array.from({ length: matrix.rows }, (_, r) => place(r));
    const causal = data.layer(look.head.layer)?.mask === "causal";
    const ramp = soft ? theme.sequential : theme.diverging;
    const at = rows
      ? (v: number, r: number) => Math.round(rows[r]!(v) * 255)
      : (v: number) => diverge(v, limit);
    paintStage(figure.canvas, { matrix, geometry: g, ramp, at, causal, theme, ratio });
    figure.legend(ramp, soft ? weightTicks(whole, look) : [constant(-limit), "0", `+${constant(limit)}`]);
  }

  /** The end of a stage's scale. */
  private limit(stage: string, picture: Matrix, { sinkAside }: StagesLook): number {
    const key = `${stage} ${sinkAside}`;
    const limit = this.limits.get(key) ?? symmetricLimit(picture, sinkAside);
    this.limits.set(key, limit);
    return limit;
  }

  /** Values above the pictures and rings in them: of the cell pointed at, else of the chosen one. */
  private readOut(): void {
    const { replay, data, look, chosen } = this;
    if (!replay || !data || !look || !chosen) return;
    const cell = this.pointed ?? chosen;
    this.element.classList.toggle("lt-pointed", this.pointed !== null);
    const values = this.figures.map((figure) => {
      figure.rings(replay, look.ratio, chosen, this.pointed);
      const value = stageValue(replay, figure.stage, ...cell);
      figure.value.textContent = value;
      const about = `${figure.stage} ${value}`;
      figure.canvas.setAttribute("aria-label", about);
      if (figure.stage === "softmax") figure.more.textContent = sinkWords(replay, cell[0]);
      return about;
    });
    const name = (i: number, tokens: readonly string[]) => `${tokens[i] ?? "token"} ${i}`;
    this.row.setAttribute(
      "aria-label",
      `Stages of ${name(cell[0], data.queries)} and ${name(cell[1], data.facts.tokens)}: ${values.join(", ")}`,
    );
    if (this.pointed)
      this.note.replaceChildren(queryName(data, cell[0]), " \u2192 ", tokenName(data, cell[1]));
    else this.note.replaceChildren("the same cell in each; the operation between them");
  }

  /** The cell under the pointer; where a pixel stands for several, the strongest of them. */
  private at(e: MouseEvent): Cell | null {
    const { replay, figures } = this;
    const figure = figures.find((f) => f.canvas === e.target);
    if (!figure?.geometry || !replay) return null;
    const box = figure.canvas.getBoundingClientRect();
    const { columns, rows } = figure.geometry;
    const inside = (v: number, size: number, n: number) =>
      Math.max(0, Math.min(n - 1, Math.floor((v / size) * n)));
    const column = inside(e.clientX - box.left, box.width, columns);
    const row = inside(e.clientY - box.top, box.height, rows);
    return strongest(replay, figure.stage, row, rows, column, columns);
  }

  /** Asks for a large head's pictures one after another, and draws each when it comes. */
  private async bring(replay: Replay, head: Head): Promise<void> {
    const size: Cell = [Math.min(TILE, replay.rows), Math.min(TILE, replay.keys)];
    for (const stage of replay.stages) {
      const tile = await this.events.tile(head, replay, stage, size).catch(() => null);
      if (this.replay !== replay) return;
      if (tile) this.pictures.set(stage, tile);
      this.draw();
    }
  }
}

/** Its pictures take longer than a frame: they come as tiles, one by one. */
function isLarge(replay: Replay): boolean {
  return replay.rows * replay.keys > AT_ONCE;
}

function sinkWords(replay: Replay, query: number): string {
  const share = sinkShare(replay, query);
  return Number.isNaN(share) ? "" : `the sink takes ${smallWeight(share)} of this row`;
}

function sameCell(a: Cell | null, b: Cell | null): boolean {
  return a === b || (a !== null && b !== null && a[0] === b[0] && a[1] === b[1]);
}

/** Ticks under the weights: least, middle, most. */
function weightTicks(matrix: Matrix, look: StagesLook): string[] {
  if (look.scale === "log") return [".001", ".03", "1"];
  if (look.scale === "row") return ["0", "\u00bd", "row\u2019s max"];
  const most = automaticMaximum(matrix, look.sinkAside);
  return ["0", String(Number((most / 2).toPrecision(2))), String(Number(most.toPrecision(2)))];
}

/** The cell of greatest magnitude in a block of a picture; its middle where all of it is masked. */
export function strongest(
  replay: Replay,
  stage: string,
  row: number,
  rows: number,
  column: number,
  columns: number,
): Cell {
  const [r0, r1] = [edge(row, replay.rows, rows), edge(row + 1, replay.rows, rows)];
  const [k0, k1] = [edge(column, replay.keys, columns), edge(column + 1, replay.keys, columns)];
  let best: Cell = [(r0 + r1 - 1) >> 1, (k0 + k1 - 1) >> 1];
  let most = -1;
  for (let i = r0; i < r1; i++)
    for (let j = k0; j < k1; j++) {
      const size = Math.abs(replay.value(stage, i, j));
      if (size > most) {
        most = size;
        best = [i, j];
      }
    }
  return best;
}
