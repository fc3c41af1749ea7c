// The rows of the tree: nodes that are open to see, and runs of siblings that are built alike, folded to one row.
// In: TreeData, what is open, what is chosen. Out: rows in order.
import { isNumbered, type TreeData } from "./data";

/** A node, or (where `last` is another) a run of siblings from `first` to `last`. */
export interface Row {
  readonly first: number;
  readonly last: number;
  readonly level: number;
  readonly open: boolean;
  readonly opens: boolean;
  readonly place: number;
  readonly siblings: number;
  /** How many nodes the run has; 1 = a node. */
  readonly count: number;
}

/** Fewer siblings than this are not folded; the heads of a KV head are few and each is a thing of its own. */
const RUN = 3;
const HEADS = 17;

/** What is open: nodes and runs, a run under the name of the first node that it has when nothing is chosen. */
export class Opened {
  private readonly nodes = new Set<number>();
  private readonly runs = new Set<number>();

  has(row: Row, run: number): boolean {
    return row.count > 1 ? this.runs.has(run) : this.nodes.has(row.first);
  }

  set(node: number, run: number | null, open: boolean): void {
    const own = run === null ? this.nodes : this.runs;
    if (open) own.add(run ?? node);
    else own.delete(run ?? node);
  }

  /** Opens everything above a node, but no run: the node is then shown between what is left of it. */
  reveal(data: TreeData, node: number): void {
    for (let i = data.parent[node] ?? -1; i >= 0; i = data.parent[i]!) this.nodes.add(i);
  }

  isOpen(node: number): boolean {
    return this.nodes.has(node);
  }

  runOpen(first: number): boolean {
    return this.runs.has(first);
  }
}

interface Piece {
  readonly first: number;
  readonly last: number;
  readonly count: number;
  /** The run that it is a piece of. */
  readonly run: number;
}

/** Children in pieces: single nodes, and runs; nodes for which `alone` holds are taken out of their run, named by its first. */
function pieces(
  data: TreeData,
  children: readonly number[],
  alone: (node: number, run: number) => boolean,
): Piece[] {
  const found: Piece[] = [];
  const { signature } = data;
  let i = 0;
  while (i < children.length) {
    const start = children[i]!;
    let stop = i + 1;
    if (isNumbered(data.kindOf(start)))
      while (stop < children.length && signature[children[stop]!] === signature[start]) stop++;
    if (stop - i < (data.kindOf(start) === "head" ? HEADS : RUN)) {
      for (; i < stop; i++) found.push({ first: children[i]!, last: children[i]!, count: 1, run: start });
      continue;
    }
    let from = i;
    for (; i <= stop; i++) {
      const here = i < stop && alone(children[i]!, start);
      if (!here && i < stop) continue;
      const left = children.slice(from, i);
      if (left.length >= RUN)
        found.push({ first: left[0]!, last: left.at(-1)!, count: left.length, run: start });
      else for (const one of left) found.push({ first: one, last: one, count: 1, run: start });
      if (here) found.push({ first: children[i]!, last: children[i]!, count: 1, run: start });
      from = i + 1;
    }
    i = stop;
  }
  return found;
}

/** All rows that can be scrolled to. The model itself is the title, so its children are the first level. */
export function rowsOf(data: TreeData, opened: Opened, chosen: number): { rows: Row[]; runs: number[] } {
  const rows: Row[] = [];
  const runs: number[] = [];
  const above = new Set<number>();
  for (let i = chosen; i >= 0; i = data.parent[i]!) above.add(i);
  const alone = (node: number, run: number) =>
    !opened.runOpen(run) && (above.has(node) || opened.isOpen(node));
  const add = (node: number, level: number, place: number, siblings: number) => {
    const opens = data.hasChildren(node);
    const open = opens && opened.isOpen(node);
    rows.push({ first: node, last: node, level, open, opens, place, siblings, count: 1 });
    runs.push(-1);
    if (open) below(node, level + 1);
  };
  const below = (parent: number, level: number) => {
    const own = pieces(data, data.children(parent), alone);
    own.forEach((piece, i) => {
      if (piece.count === 1) {
        add(piece.first, level, i + 1, own.length);
        return;
      }
      const open = opened.runOpen(piece.run);
      rows.push({ ...piece, level, open, opens: true, place: i + 1, siblings: own.length });
      runs.push(piece.run);
      if (!open) return;
      let at = 1;
      for (let n = piece.first; n <= piece.last; n = data.end[n]!) add(n, level + 1, at++, piece.count);
    });
  };
  below(0, 1);
  return { rows, runs };
}
