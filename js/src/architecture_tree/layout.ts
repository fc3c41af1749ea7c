// Where everything stands in the byte map: area = bytes, exactly, left to right = through the model.
// In: one model or two, the room. Out: columns with their place, and for every pixel the leaf that it shows.
import { KINDS, type TreeData } from "./data";

/** One column: a layer, or a part of the model that is none. */
export interface Column {
  readonly key: string;
  readonly label: string;
  readonly node: number;
  /** Leaves [first, end), stacked in this order. */
  readonly first: number;
  readonly end: number;
  readonly bytes: number;
  /** Columns of a group are equally wide. */
  readonly group: string;
}

export interface Placed {
  readonly key: string;
  readonly label: string;
  readonly layered: boolean;
  readonly x: number;
  readonly width: number;
}

export interface Layout {
  readonly width: number;
  readonly height: number;
  /** Square pixels of a byte. */
  readonly area: number;
  readonly columns: readonly Placed[];
}

/** The columns of a model, in its order. */
export function columnsOf(data: TreeData): Column[] {
  const found: Column[] = [];
  for (const part of data.children(0)) {
    const name = data.text(data.name[part]!);
    const own = data.children(part).filter((child) => data.kindOf(child) === "layer");
    const layered = own.length > 0;
    for (const node of layered ? own : [part]) {
      const [first, end] = data.leavesOf(node);
      const label = layered ? `L${data.layer[node]}` : name;
      found.push({
        key: layered ? `${name}/${label}` : name,
        label,
        node,
        first,
        end,
        bytes: data.bytes[node]!,
        group: name,
      });
    }
  }
  return found;
}

/** Places the columns of one model, or of two on the same scale and in the same places. */
export function layoutMap(sides: readonly (readonly Column[])[], width: number, height: number): Layout {
  const order: Column[] = [];
  for (const side of sides) {
    let at = 0;
    for (const column of side) {
      const known = order.findIndex((c) => c.key === column.key);
      if (known < 0) order.splice(at, 0, column);
      at = (known < 0 ? at : known) + 1;
    }
  }
  const most = new Map<string, number>();
  for (const side of sides)
    for (const { group, bytes } of side) most.set(group, Math.max(most.get(group) ?? 0, bytes));
  const total = order.reduce((sum, c) => sum + most.get(c.group)!, 0);
  let used = 0;
  const columns = order.map((c) => {
    const x = total > 0 ? (used / total) * width : 0;
    used += most.get(c.group)!;
    const right = total > 0 ? (used / total) * width : 0;
    return { key: c.key, label: c.label, layered: c.key !== c.group, x, width: right - x };
  });
  return { width, height, area: total > 0 ? (width * height) / total : 0, columns };
}

/** The leaf that each pixel shows (-1 = paper), and where lines between leaves are drawn. */
export interface Raster {
  readonly width: number;
  readonly height: number;
  readonly owner: Int32Array;
  readonly edge: Uint8Array;
}

/** Narrower than this (px) nothing is drawn between neighbours: it would take a large part of what it parts. */
const LINE = 4;

/** A pixel shows the leaf at its middle, so a leaf has as many pixels as its bytes give it. */
export function rasterize(data: TreeData, own: readonly Column[], layout: Layout, ratio: number): Raster {
  const [width, height] = [Math.round(layout.width * ratio), Math.round(layout.height * ratio)];
  const owner = new Int32Array(width * height).fill(-1);
  const edge = new Uint8Array(width * height);
  const byKey = new Map(own.map((c) => [c.key, c]));
  const strip = new Int32Array(height);
  const lines = new Uint8Array(height);
  for (const placed of layout.columns) {
    const column = byKey.get(placed.key);
    const [left, right] = [Math.round(placed.x * ratio), Math.round((placed.x + placed.width) * ratio)];
    if (!column || right <= left) continue;
    fillStrip(data, column, layout, placed.width, ratio, strip, lines);
    const parted = placed.width >= LINE;
    for (let y = 0; y < height; y++) {
      const at = strip[y]!;
      if (at < 0) break;
      const row = y * width;
      owner.fill(at, row + left, row + right);
      if (lines[y] === 1 && parted) edge.fill(1, row + left, row + right);
      if (parted && right < width) edge.fill(1, row + right - Math.max(1, Math.floor(ratio)), row + right);
    }
  }
  return { width, height, owner, edge };
}

function fillStrip(
  data: TreeData,
  column: Column,
  layout: Layout,
  width: number,
  ratio: number,
  strip: Int32Array,
  lines: Uint8Array,
): void {
  strip.fill(-1);
  lines.fill(0);
  const perByte = (layout.area / width) * ratio;
  const line = Math.max(1, Math.floor(ratio));
  let [y, bytes] = [0, 0];
  for (let leaf = column.first; leaf < column.end; leaf++) {
    bytes += data.leafBytes[leaf]!;
    const stop = Math.min(strip.length, Math.round(bytes * perByte));
    if (stop - y >= LINE * ratio && y > 0) lines.fill(1, y, y + line);
    strip.fill(leaf, y, stop);
    y = stop;
  }
}

/** The box of some leaves in a column, in px. */
export function boxOf(
  data: TreeData,
  own: readonly Column[],
  layout: Layout,
  first: number,
  end: number,
): DOMRect | null {
  const columns = own.filter((c) => c.first < end && c.end > first);
  const places = columns.map((c) => layout.columns.find((p) => p.key === c.key)!);
  const [left, right] = [places[0], places.at(-1)];
  if (!left || !right) return null;
  let [top, bottom] = [0, 0];
  columns.forEach((column, i) => {
    const perByte = places[i]!.width > 0 ? layout.area / places[i]!.width : 0;
    let y = 0;
    let above = 0;
    for (let leaf = column.first; leaf < Math.min(column.end, end); leaf++) {
      if (leaf < first) above += data.leafBytes[leaf]!;
      y += data.leafBytes[leaf]!;
    }
    if (columns.length === 1) top = above * perByte;
    bottom = Math.max(bottom, y * perByte);
  });
  return new DOMRect(left.x, top, right.x + right.width - left.x, bottom - top);
}

/** Columns whose label is written below the map: every so many layers that they do not touch, and the last. */
export function labelled(layout: Layout, room: number): { label: string; x: number }[] {
  const found: { label: string; x: number }[] = [];
  const layers = layout.columns.filter((c) => c.layered);
  const step = [1, 5, 10, 20, 50, 100, 200, 500].find((n) => n * (layers[0]?.width ?? 0) >= room) ?? 1000;
  const last = layers.at(-1);
  for (const column of layers) {
    const number = Number(column.label.slice(1));
    const x = column.x + column.width / 2;
    const free = column === last || !last || last.x + last.width / 2 - x >= room * 0.8;
    const other = column.key.slice(0, column.key.lastIndexOf("/"));
    const own = last?.key.startsWith(`${other}/`) ?? false;
    if (column === last || (number % step === 0 && (free || !own))) found.push({ label: column.label, x });
  }
  return found;
}

export const LAYER_KIND = KINDS.indexOf("layer");
