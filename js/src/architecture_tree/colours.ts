// Colours of the byte map: quant types by bits and texture, quantities on the house's scales.
// In: types, values, a theme. Out: two pixels per leaf (a texture changes between them), CSS for badges and bars.
import { contrast, css, mix, parseColour, pixel, type Rgb } from "../shared/colour";
import type { Theme } from "../shared/theme";
import type { TreeData, TypeFacts } from "./data";

/** Colour of a quant type by its bits, light and dark. */
export const QUANT: Readonly<Record<number, readonly [light: string, dark: string]>> = {
  2: ["#5e2a72", "#a06cc0"],
  3: ["#a8437c", "#d271a8"],
  4: ["#e58488", "#f2a0a0"],
  5: ["#efd183", "#f0d98f"],
  6: ["#7fc4bd", "#8fd6cc"],
  8: ["#2f8bb0", "#4fa9d6"],
  16: ["#2f5597", "#7d9ae0"],
  32: ["#9aa2ac", "#8a929d"],
};

/** How much of a colour is left where a search or an isolation leaves it out. */
const DIMMED = 0.36;
/** How much of the colour the lines or dots of a texture have. */
const TEXTURE = 0.62;

export type Texture = 0 | 1 | 2; // plain, stripes, dots
/** What a type's looks follow from. */
export type Look = Pick<TypeFacts, "hue" | "family">;

export function textureOf(type: Look | null): Texture {
  return type?.family === "legacy" ? 1 : type?.family === "iq" ? 2 : 0;
}

export function typeColour(type: Look | null, theme: Theme): Rgb {
  if (!type) return mix(theme.paper, theme.ink, 0.1);
  const own = type.hue === null ? undefined : QUANT[type.hue];
  return own ? parseColour(own[theme.dark ? 1 : 0])! : theme.ink3;
}

/** The lighter shade of a texture. */
function second(colour: Rgb, theme: Theme): Rgb {
  return mix(theme.paper, colour, TEXTURE);
}

/** Ink or paper, whichever is read better on a colour. */
export function inkOn(colour: Rgb): string {
  const [black, white]: Rgb[] = [
    [23, 27, 33],
    [255, 255, 255],
  ];
  return css(contrast(colour, black!) >= contrast(colour, white!) ? black! : white!);
}

/** A type's colour with its texture, as a CSS background. */
export function typeBackground(type: Look | null, theme: Theme): string {
  const colour = typeColour(type, theme);
  const [a, b] = [css(colour), css(second(colour, theme))];
  const texture = textureOf(type);
  if (texture === 1) return `repeating-linear-gradient(135deg, ${a} 0 3px, ${b} 3px 4.2px)`;
  if (texture === 2) return `radial-gradient(${b} 1px, transparent 1.2px) 0 0 / 5px 5px, ${a}`;
  return a;
}

/** What the colours of a map stand for. */
export interface Overlay {
  readonly name: string;
  readonly label: string;
  readonly words: string;
  /** One value per leaf, NaN for none; null: by quant type. */
  readonly values: Float32Array | null;
  readonly scale: "type" | "linear" | "root" | "diverging";
  readonly low: number;
  readonly high: number;
  /** How a value is written. */
  readonly write: (value: number) => string;
}

/** Place of a value on its scale, 0 to 255; the scale of roots shows small values too. */
export function placeOf(overlay: Overlay, value: number): number {
  const { low, high, scale } = overlay;
  if (high <= low) return 0;
  const share = Math.max(0, Math.min(1, (value - low) / (high - low)));
  return Math.round(255 * (scale === "root" ? Math.sqrt(share) : share));
}

export interface Shades {
  readonly first: Uint32Array;
  readonly second: Uint32Array;
  readonly texture: Uint8Array;
  readonly paper: number;
}

/** Two pixels per leaf; leaves that `kept` leaves out are dimmed. */
export function shadesOf(data: TreeData, overlay: Overlay, theme: Theme, kept: Uint8Array | null): Shades {
  const first = new Uint32Array(data.leaves);
  const other = new Uint32Array(data.leaves);
  const texture = new Uint8Array(data.leaves);
  const faint = (c: Rgb, on: boolean) => pixel(on ? c : mix(theme.paper, c, DIMMED));
  const none = mix(theme.paper, theme.ink, 0.06);
  const byType = data.facts.types.map((type) => {
    const colour = typeColour(type, theme);
    return { colour, second: second(colour, theme), texture: textureOf(type) };
  });
  const ramp = overlay.scale === "diverging" ? theme.diverging : theme.sequential;
  for (let leaf = 0; leaf < data.leaves; leaf++) {
    const on = kept === null || kept[leaf] === 1;
    const type = data.leafType[leaf]!;
    if (overlay.values === null && type >= 0) {
      const own = byType[type]!;
      first[leaf] = faint(own.colour, on);
      other[leaf] = faint(own.second, on);
      texture[leaf] = own.texture;
      continue;
    }
    const value = overlay.values?.[leaf] ?? Number.NaN;
    const colour = Number.isNaN(value) ? none : ramp[placeOf(overlay, value)]!;
    first[leaf] = other[leaf] = faint(colour, on);
  }
  return { first, second: other, texture, paper: pixel(theme.paper) };
}
