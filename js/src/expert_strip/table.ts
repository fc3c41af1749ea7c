// One layer's table: tokens down, experts to the right, weights as colour, the load under it; and its geometry.
// In: data, a layer, a window of tokens. Out: pixels on a canvas, and what lies at a point of it.
import { css } from "../shared/colour";
import { shorten } from "../shared/format";
import type { StripData } from "./data";
import { bars, type Look, prepare, readable, shade } from "./paint";

export interface Table {
  readonly left: number;
  readonly top: number;
  /** Pixels per expert, and per token. */
  readonly cellX: number;
  readonly cellY: number;
  readonly width: number;
  readonly height: number;
  /** Bottom line of the load. */
  readonly base: number;
  /** Tokens that are shown: first and last, exclusive. */
  readonly from: number;
  readonly to: number;
}

/** Tokens in view at once; the overview moves the window. */
export const WINDOW = 24;
const ROW = 18;
/** The tallest bar of the load. */
export const LOAD = 64;

/** Which tokens are in view, so that `token` is among them. */
export function windowAt(tokens: number, token: number | null): [number, number] {
  if (tokens <= WINDOW) return [0, tokens];
  const from = Math.max(0, Math.min(tokens - WINDOW, (token ?? 0) - WINDOW / 2));
  return [from, from + WINDOW];
}

export function layoutTable(data: StripData, token: number | null, room: number): Table {
  const [from, to] = windowAt(data.tokens, token);
  const left = room < 420 ? 88 : 116;
  const experts = Math.max(1, data.facts.n_experts);
  const free = (room - left - 14) / experts;
  const cellX = free >= 1 ? Math.min(34, Math.floor(free)) : free;
  const top = 20;
  const height = top + (to - from) * ROW;
  const base = height + 16 + LOAD;
  return {
    left,
    top,
    cellX,
    cellY: ROW,
    width: Math.ceil(left + experts * cellX) + (cellX < 28 ? 14 : 2),
    height: base + 18,
    base,
    from,
    to,
  };
}

export function paintTable(
  canvas: HTMLCanvasElement,
  data: StripData,
  layer: number,
  table: Table,
  look: Look & { readonly expert: number | null },
): void {
  const ctx = prepare(canvas, table.width, table.height, look.ratio);
  if (!ctx) return;
  const { theme } = look;
  const { left, top, cellX, cellY, from, to } = table;
  const experts = data.facts.n_experts;
  ctx.fillStyle = css(theme.paper);
  ctx.fillRect(0, 0, table.width, table.height);
  names(ctx, table, experts, look);
  for (let t = from; t < to; t++) {
    const y = top + (t - from) * cellY;
    const mine = t === look.token;
    ctx.font = `${mine ? 600 : 400} 12px ${theme.mono}`;
    ctx.fillStyle = css(mine ? theme.accentText : theme.ink2);
    ctx.textAlign = "right";
    ctx.fillText(shorten(data.facts.tokens[t] ?? "", left < 100 ? 10 : 12), left - 10, y + cellY / 2 + 4);
    ctx.fillStyle = css(data.computed(layer, t) ? theme.sequential[0]! : theme.plate);
    ctx.fillRect(left, y, experts * cellX, cellY - 1);
    for (const c of data.choices(layer, t) ?? []) {
      const known = !Number.isNaN(c.weight);
      const colour = known ? shade(theme, c.weight / (data.facts.most || 1)) : theme.ink3;
      const wide = Math.max(1, cellX - (cellX >= 4 ? 1 : 0));
      ctx.fillStyle = css(colour);
      ctx.fillRect(left + Math.floor(c.expert * cellX), y, wide, cellY - 1);
      if (!known || cellX < 30) continue;
      ctx.font = `10px ${theme.sans}`;
      ctx.textAlign = "center";
      ctx.fillStyle = css(readable(colour, theme));
      ctx.fillText(
        c.weight.toFixed(2).replace(/^0/, ""),
        left + (c.expert + 0.5) * cellX - 0.5,
        y + cellY / 2 + 3,
      );
    }
  }
  if (look.token !== null && look.token >= from && look.token < to)
    frame(ctx, left - 1.5, top + (look.token - from) * cellY - 1.5, experts * cellX + 2, cellY + 2, look);
  const load = data.load(layer);
  const weighted = data.load(layer, true);
  const most = Math.max(...load, ...[...weighted].filter((v) => !Number.isNaN(v)));
  const wide = Math.round(experts * cellX);
  bars(ctx, load, left, wide, table.base, LOAD, most, theme, theme.ink3, look.expert);
  byWeight(ctx, weighted, most, table, look);
  ctx.font = `600 11px ${theme.sans}`;
  ctx.textAlign = "right";
  ctx.fillStyle = css(theme.ink2);
  ctx.fillText("Load", left - 10, table.base - LOAD + 12);
  ctx.font = `10px ${theme.sans}`;
  ctx.fillStyle = css(theme.ink3);
  ctx.fillText(`- - even ${(1 / experts).toFixed(3)}`, left - 10, table.base - LOAD + 28);
  ctx.fillText("\u2501 by weight", left - 10, table.base - LOAD + 43);
}

function names(
  ctx: CanvasRenderingContext2D,
  table: Table,
  experts: number,
  look: Look & { expert: number | null },
) {
  const { theme } = look;
  const every = Math.max(1, Math.ceil((experts > 100 ? 34 : 28) / table.cellX));
  for (let e = 0; e < experts; e++) {
    const mine = e === look.expert;
    const near = look.expert !== null && !mine && Math.abs(e - look.expert) < every;
    if (!mine && (e % every !== 0 || near)) continue;
    ctx.font = `${mine ? 600 : 400} 11px ${theme.sans}`;
    ctx.fillStyle = css(mine ? theme.accentText : theme.ink3);
    ctx.textAlign = "center";
    const x = table.left + (e + 0.5) * table.cellX;
    ctx.fillText(`E${e}`, x, table.top - 7);
    ctx.fillText(`E${e}`, x, table.base + 14);
  }
}

/** A line across each bar: the load when every hand-over counts as much as its weight. */
function byWeight(
  ctx: CanvasRenderingContext2D,
  weighted: Float32Array,
  most: number,
  table: Table,
  look: Look,
): void {
  ctx.fillStyle = css(look.theme.ink);
  weighted.forEach((share, e) => {
    if (Number.isNaN(share) || share === 0) return;
    const y = table.base - Math.round((share / most) * LOAD);
    const x = table.left + Math.floor(e * table.cellX);
    ctx.fillRect(x, y - 1, Math.max(1, Math.floor(table.cellX) - (table.cellX >= 4 ? 1 : 0)), 2);
  });
}

function frame(ctx: CanvasRenderingContext2D, x: number, y: number, w: number, h: number, look: Look): void {
  ctx.strokeStyle = css(look.theme.accent);
  ctx.lineWidth = 1.5;
  ctx.strokeRect(x, y, w, h);
}

/** Token (null = under the tokens) and expert at a point; null where there is nothing. */
export function tableHit(
  table: Table,
  experts: number,
  x: number,
  y: number,
): { token: number | null; expert: number } | null {
  const expert = Math.floor((x - table.left) / table.cellX);
  if (expert < 0 || expert >= experts || y < 0 || y > table.height) return null;
  const row = Math.floor((y - table.top) / table.cellY);
  const inside = row >= 0 && row < table.to - table.from;
  if (!inside && row >= 0 && y < table.base - LOAD - 8) return null;
  return { token: inside ? table.from + row : null, expert };
}
