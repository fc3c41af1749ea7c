// Colours as numbers: parsing, mixing, contrast, and the two colour scales of the house as look-up tables.
// In: CSS colour strings. Out: [r, g, b] triples, CSS strings, and 256-entry tables ready for ImageData.

/** Red, green, blue, each 0 to 255. */
export type Rgb = readonly [number, number, number];

/** The sequential scale (probability, attention): equal steps of lightness, first stop = paper. */
export const SEQUENTIAL = {
  light: ["#f3f7f6", "#d3eee0", "#8bdab2", "#40b7ad", "#348fa7", "#37659e", "#413d7b", "#2e1e3b", "#160d1e"],
  dark: ["#1b1e25", "#2c2446", "#413d7b", "#37659e", "#348fa7", "#40b7ad", "#8bdab2", "#def5e5", "#fbfff8"],
} as const;

/** The diverging scale (scores, differences): always drawn symmetric about 0, middle = paper. */
export const DIVERGING = {
  light: ["#0c3c78", "#2b6cb0", "#6fa8d6", "#c3dcec", "#f5f5f3", "#f6d2c3", "#e59078", "#c2452f", "#7d1717"],
  dark: ["#8cc4ff", "#4f92d6", "#2d5f94", "#22384f", "#1f2329", "#50302c", "#93473c", "#d8705f", "#ffab98"],
} as const;

/** Reads "#rgb", "#rrggbb", "rgb(…)" and "rgba(…)"; null for anything else and for fully transparent colours. */
export function parseColour(text: string): Rgb | null {
  const s = text.trim();
  const hex = /^#([0-9a-f]{3}|[0-9a-f]{6})$/i.exec(s)?.[1];
  if (hex) {
    const full = hex.length === 3 ? [...hex].map((c) => c + c).join("") : hex;
    const n = Number.parseInt(full, 16);
    return [n >> 16, (n >> 8) & 255, n & 255];
  }
  const inner = /^rgba?\(([^)]+)\)$/i.exec(s)?.[1];
  if (!inner) return null;
  const [r, g, b, a] = inner.split(/[\s,/]+/).map(Number.parseFloat);
  if (r === undefined || g === undefined || b === undefined || a === 0) return null;
  return [r, g, b].every(Number.isFinite) ? [r, g, b] : null;
}

/** "rgb(r,g,b)". */
export function css([r, g, b]: Rgb): string {
  return `rgb(${Math.round(r)},${Math.round(g)},${Math.round(b)})`;
}

/** a where t = 0, b where t = 1. */
export function mix(a: Rgb, b: Rgb, t: number): Rgb {
  return [a[0] + (b[0] - a[0]) * t, a[1] + (b[1] - a[1]) * t, a[2] + (b[2] - a[2]) * t];
}

/** Relative luminance of WCAG 2, 0 (black) to 1 (white). */
export function luminance(c: Rgb): number {
  const [r, g, b] = c.map((v) => {
    const x = v / 255;
    return x <= 0.04045 ? x / 12.92 : ((x + 0.055) / 1.055) ** 2.4;
  }) as [number, number, number];
  return 0.2126 * r + 0.7152 * g + 0.0722 * b;
}

/** Contrast ratio of WCAG 2, 1 to 21. */
export function contrast(a: Rgb, b: Rgb): number {
  const [hi, lo] = [luminance(a), luminance(b)].sort((x, y) => y - x) as [number, number];
  return (hi + 0.05) / (lo + 0.05);
}

/** 256 colours, linear between the stops. */
export function ramp(stops: readonly Rgb[]): Rgb[] {
  const last = stops.length - 1;
  return Array.from({ length: 256 }, (_, i) => {
    const at = (i / 255) * last;
    const k = Math.min(last - 1, Math.floor(at));
    return mix(stops[k]!, stops[k + 1]!, at - k);
  });
}

const LITTLE_ENDIAN = new Uint8Array(new Uint32Array([1]).buffer)[0] === 1;

/** One opaque pixel as ImageData's 32-bit word on this machine. */
export function pixel([r, g, b]: Rgb): number {
  const [R, G, B] = [Math.round(r), Math.round(g), Math.round(b)];
  const word = LITTLE_ENDIAN
    ? (255 << 24) | (B << 16) | (G << 8) | R
    : (R << 24) | (G << 16) | (B << 8) | 255;
  return word >>> 0;
}

/** Pixels of a ramp, faded towards `paper` where alpha < 1. */
export function pixels(colours: readonly Rgb[], paper: Rgb, alpha = 1): Uint32Array<ArrayBuffer> {
  return Uint32Array.from(colours, (c) => pixel(mix(paper, c, alpha)));
}
