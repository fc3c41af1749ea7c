// The crosshair on the large matrix: the chosen cell's row and column, and the cell that is pointed at.
// In: where cells are, the cells. Out: boxes over the canvas; those outside the viewport are hidden.
import { h } from "../shared/dom";
import { columnWidth, columnX, type MatrixGeometry, rightOf, rowY } from "./paint_matrix";
import { within } from "./viewport";

export type Cell = readonly [query: number, key: number];

export interface Box {
  x: number;
  y: number;
  width: number;
  height: number;
  dashed?: boolean;
  thick?: boolean;
}

/** Cells below this size are crossed through their middle. */
const THIN = 3;
/** And the chosen one is a square of this size. */
const MARK = 10;

export class Crosshair {
  private readonly row = h("div", { class: "lt-cross lt-cross-row", hidden: true });
  private readonly column = h("div", { class: "lt-cross lt-cross-column", hidden: true });
  private readonly cell = h("div", { class: "lt-cross lt-cross-cell", hidden: true });
  private readonly pointed = h("div", { class: "lt-cross lt-cross-hover", hidden: true });
  readonly elements = [this.column, this.row, this.cell, this.pointed];

  /** Marks the chosen cell. */
  choose(g: MatrixGeometry | null, cell: Cell | null): void {
    for (const e of [this.row, this.column, this.cell]) e.hidden = true;
    if (!g || !cell) return;
    const [query, key] = cell;
    const seen = {
      row: within([g.row0, g.row0 + g.rows], query),
      key: within([g.key0, g.key0 + g.keys], key),
    };
    const [x, y] = [columnX(g, key), rowY(g, query)];
    const [w, hh] = [columnWidth(g, key), g.cellY];
    const [width, height] = [rightOf(g) - g.left, g.rows * g.cellY];
    const thin = { row: g.cellY < THIN, column: w < THIN };
    this.row.classList.toggle("lt-thin", thin.row);
    this.column.classList.toggle("lt-thin", thin.column);
    this.cell.classList.toggle("lt-thin", thin.row || thin.column);
    if (seen.row && thin.row) put(this.row, g.left, y + hh / 2 - 1, width, 0);
    if (seen.row && !thin.row) put(this.row, g.left - 1, y - 1, width + 2, hh + 2);
    if (seen.key && thin.column) put(this.column, x + w / 2 - 1, g.top, 0, height);
    if (seen.key && !thin.column) put(this.column, x - 1, g.top - 1, w + 2, height + 2);
    if (!seen.row || !seen.key) return;
    const [mw, mh] = [thin.column ? MARK : w + 4, thin.row ? MARK : hh + 4];
    put(this.cell, x + w / 2 - mw / 2, y + hh / 2 - mh / 2, mw, mh);
  }

  /** Marks the cell that is pointed at, here or in a stage. */
  point(g: MatrixGeometry | null, cell: Cell | null): void {
    this.pointed.hidden = true;
    if (!g || !cell) return;
    const [query, key] = cell;
    if (!within([g.row0, g.row0 + g.rows], query) || !within([g.key0, g.key0 + g.keys], key)) return;
    const [w, hh] = [Math.max(THIN, columnWidth(g, key)) + 2, Math.max(THIN, g.cellY) + 2];
    put(this.pointed, Math.round(columnX(g, key)) - 1, Math.round(rowY(g, query)) - 1, w, hh);
  }
}

/** The chosen cell's boxes, for pictures. */
export function crossBoxes(g: MatrixGeometry | null, cell: Cell | null): Box[] {
  if (!g || !cell) return [];
  const [query, key] = cell;
  const row = within([g.row0, g.row0 + g.rows], query);
  const column = within([g.key0, g.key0 + g.keys], key);
  const [x, y, width] = [columnX(g, key), rowY(g, query), columnWidth(g, key)];
  const boxes: (Box | false)[] = [
    column && { x, y: g.top, width, height: g.rows * g.cellY, dashed: true },
    row && { x: g.left, y, width: rightOf(g) - g.left, height: g.cellY },
    row && column && { x, y, width, height: g.cellY, thick: true },
  ];
  return boxes.filter((box) => box !== false);
}

function put(e: HTMLElement, x: number, y: number, width: number, height: number): void {
  e.hidden = false;
  e.style.transform = `translate(${Math.round(x)}px, ${Math.round(y)}px)`;
  e.style.width = `${Math.round(width)}px`;
  e.style.height = `${Math.round(height)}px`;
}
