// The colour of every point: a palette of 256 and one code per point, with how much it stands out.
// In: data, the column that colours, what is isolated and selected. Out: bytes for the graphics card, rows of a legend.
import { mix, parseColour, type Rgb } from "../shared/colour";
import type { Theme } from "../shared/theme";
import type { Column, Links, SpaceData } from "./data";

/** Groups, at most eight: light, dark. What belongs to no group is grey. */
export const GROUPS = [
  ["#1570b8", "#6cb2f0"],
  ["#b07d00", "#e0b64a"],
  ["#158a5c", "#4fc795"],
  ["#c43c94", "#f07cc4"],
  ["#6e4fcf", "#a993ff"],
  ["#84532a", "#c9996b"],
  ["#568a0e", "#a3cf5a"],
  ["#128c99", "#4cc7d4"],
] as const;

export const GREY = 0;
export const ACCENT = 9;
/** Of the lines of a network. */
export const LINK = 10;
/** Codes from here on are the ramp of numbers. */
export const RAMP = 11;
const STEPS = 256 - RAMP;
/** The ramp's first colours are the paper itself: points start a little later, so that none is lost. */
const VISIBLE = 0.14;

export function hue(theme: Theme, i: number): Rgb {
  return parseColour(GROUPS[i % GROUPS.length]![theme.dark ? 1 : 0])!;
}

/** The colour of a share of the way from the lowest to the highest number. */
export function rampColour(theme: Theme, share: number): Rgb {
  return theme.sequential[Math.round(255 * (VISIBLE + (1 - VISIBLE) * share))]!;
}

/** 256 RGBA colours. */
export function palette(theme: Theme): Uint8Array<ArrayBuffer> {
  const out = new Uint8Array(256 * 4);
  const put = (code: number, c: Rgb) => out.set([c[0], c[1], c[2], 255], 4 * code);
  put(GREY, theme.dark ? mix(theme.ink3, theme.ink, 0.1) : mix(theme.ink3, theme.ink, 0.15));
  for (let i = 0; i < 8; i++) put(1 + i, hue(theme, i));
  put(ACCENT, theme.accent);
  put(LINK, theme.ink2);
  for (let i = 0; i < STEPS; i++) put(RAMP + i, rampColour(theme, i / (STEPS - 1)));
  return out;
}

/** Four bytes per point: code, how much it stands out, how visible it is, nothing; and the order of drawing. */
export interface Style {
  readonly bytes: Uint8Array<ArrayBuffer>;
  readonly order: Uint32Array<ArrayBuffer>;
}

/** What a legend's entry, and an isolated group, is: a code of the colouring column. */
export function codeOf(data: SpaceData, column: Column | null, cluster: boolean, row: number): number | null {
  if (cluster) return data.labels[row] ?? -1;
  return column?.kind === "name" ? column.values[row]! : null;
}

/** Hue of a code: groups have their own, names the first eight. */
function huesOf(data: SpaceData): Map<number, number> {
  const found = new Map<number, number>();
  for (const g of data.facts.clusters) if (g.hue !== null) found.set(g.label, g.hue);
  return found;
}

export function style(
  data: SpaceData,
  column: Column | null,
  cluster: boolean,
  isolated: number | null,
  selected: ReadonlySet<number>,
): Style {
  const { n } = data;
  const bytes = new Uint8Array(4 * n);
  const level = new Uint8Array(n);
  const hues = cluster ? huesOf(data) : null;
  const number = !cluster && column?.kind === "number" ? column : null;
  const names = !cluster && column?.kind === "name" ? column : null;
  const common = names ? 0.2 * n : 0;
  for (let row = 0; row < n; row++) {
    let code = GREY;
    let emphasis = 0;
    let own: number | null = null;
    if (hues) {
      own = data.labels.length > 0 ? data.labels[row]! : -1;
      const at = hues.get(own);
      if (at !== undefined) [code, emphasis] = [1 + at, 150];
    } else if (number) {
      const value = number.values[row]!;
      if (Number.isFinite(value)) {
        const share = Math.max(0, Math.min(1, (value - number.low) / (number.high - number.low)));
        code = RAMP + Math.round(share * (STEPS - 1));
        emphasis = 40 + Math.round(110 * share);
      }
    } else if (names) {
      own = names.values[row]!;
      // Large groups stay thin, or they would hide the small ones.
      if (own < 8) [code, emphasis] = [1 + own, names.counts[own]! > common ? 20 : 130];
    }
    let visible = 255;
    if (isolated !== null && own !== isolated) visible = 0;
    if (selected.size > 0 && visible) {
      if (selected.has(row)) [code, emphasis] = [ACCENT, 170];
      else visible = 150;
    }
    if (!data.placed(row)) visible = 0;
    bytes[4 * row] = code;
    bytes[4 * row + 1] = emphasis;
    bytes[4 * row + 2] = visible;
    level[row] = code === ACCENT ? 255 : emphasis;
  }
  return { bytes, order: ordered(level) };
}

/** Rows by level: what stands out is drawn last. */
function ordered(level: Uint8Array): Uint32Array<ArrayBuffer> {
  const starts = new Uint32Array(257);
  for (const l of level) starts[l + 1]! += 1;
  for (let i = 0; i < 256; i++) starts[i + 1]! += starts[i]!;
  const out = new Uint32Array(level.length);
  level.forEach((l, row) => {
    out[starts[l]!++] = row;
  });
  return out;
}

/** The lines whose ends can both be seen. */
export function seenLinks(links: Links | null, { bytes }: Style): Links | null {
  if (!links) return null;
  const seen = [...links.strength.keys()].filter(
    (i) => bytes[4 * links.ends[2 * i]! + 2]! > 0 && bytes[4 * links.ends[2 * i + 1]! + 2]! > 0,
  );
  if (seen.length === 0) return null;
  return {
    ends: Int32Array.from(seen.flatMap((i) => [links.ends[2 * i]!, links.ends[2 * i + 1]!])),
    strength: Uint8Array.from(seen, (i) => links.strength[i]!),
  };
}

/** Size in px and opacity of a grey point: many points are small and faint. */
export function grain(n: number, width: number): { size: number; alpha: number } {
  const size =
    Math.max(1.5, Math.min(7.5, 9 - 0.63 * Math.log(Math.max(1, n)))) * Math.max(0.75, width / 870);
  return { size, alpha: Math.max(0.12, Math.min(1, 62 / Math.sqrt(Math.max(1, n)))) };
}
