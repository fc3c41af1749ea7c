// What the pointer is on: the strongest of the cells under it, with its exact weight, in words.
// In: a head, the rows and keys under the pointer. Out: a cell, and the words of its tooltip.
import { h } from "../shared/dom";
import { smallWeight } from "../shared/format";
import type { Cell } from "./cross";
import type { GridData } from "./data";
import { queryName, tokenName } from "./names";
import type { Replay } from "./replay";
import { type Span, size, type Viewport } from "./viewport";

export interface Pointed {
  readonly cell: Cell;
  /** NaN where all cells are masked. */
  readonly value: number;
}

/** The cell of greatest weight in a block; its first one where all are masked. */
export function greatest(replay: Replay, { rows, keys }: Viewport): Pointed {
  let best: Pointed = { cell: [rows[0], keys[0]], value: Number.NaN };
  for (let row = rows[0]; row < rows[1]; row++)
    for (let key = keys[0]; key < keys[1]; key++) {
      const value = replay.value("softmax", row, key);
      if (value > best.value || (Number.isNaN(best.value) && !Number.isNaN(value)))
        best = { cell: [row, key], value };
    }
  return best;
}

/** What a tooltip says: the cell, its value, and of how many cells it is the greatest. */
export function cellWords(data: GridData, block: Viewport, { cell, value }: Pointed): HTMLElement[] {
  const [row, key] = cell;
  const words = !Number.isNaN(value)
    ? smallWeight(value)
    : key > row
      ? "masked: comes later"
      : "outside the window";
  const range = (what: string, [from, to]: Span) =>
    to - from > 1 ? `${what}s ${from}\u2013${to - 1}` : `${what} ${from}`;
  const many = size(block.rows) * size(block.keys) > 1;
  return [
    queryName(data, row),
    h("span", { class: "lt-quiet" }, " \u2192 "),
    tokenName(data, key),
    h("b", {}, ` ${words}`),
    ...(many
      ? [
          h(
            "div",
            { class: "lt-quiet lt-tip-block" },
            `${Number.isNaN(value) ? "" : "highest of "}${range("row", block.rows)} \u00b7 ${range("key", block.keys)}`,
          ),
        ]
      : []),
  ];
}
