// Pictures for slides and papers: the maps as they are, their layers, the quant types, the provenance; PNG or SVG.
// In: the view's canvases and words. Out: a Blob.
import { type Picture, compose as stack, toPng, toSvg } from "../attention_grid/picture";
import { bytes, count } from "../shared/format";
import type { Theme } from "../shared/theme";
import { typeColour } from "./colours";
import type { TreeData } from "./data";

export { toPng, toSvg };

export interface Part {
  readonly heading: readonly [string, string];
  readonly canvas: HTMLCanvasElement;
  /** Labels below the canvas. */
  readonly axis: readonly { label: string; x: number }[];
  /** What is chosen, in px of the canvas. */
  readonly chosen: DOMRect | null;
}

const MARGIN = 16;

/** The maps under a title, each with its layers below it; then what the colours of types mean. */
export function compose(
  title: string,
  subtitle: string,
  provenance: string,
  parts: readonly Part[],
  types: TreeData | null,
  theme: Theme,
): Picture {
  const plain = parts.map((p) => ({
    heading: p.heading,
    canvas: p.canvas,
    boxes: p.chosen ? [{ ...boxOf(p.chosen), thick: true }] : [],
    under: "",
    notes: [],
    ramp: null,
  }));
  const made = stack(title, subtitle, provenance, plain, theme);
  const items = [...made.items];
  let image = 0;
  for (const item of made.items) {
    if (item.kind !== "image") continue;
    for (const { label, x } of parts[image++]!.axis)
      items.push({
        kind: "text",
        text: label,
        x: MARGIN + x - 3 * label.length,
        y: item.y + item.height + 11,
        size: 10,
        colour: theme.ink3,
      });
  }
  const width = Math.max(made.width, 2 * MARGIN + 9 * title.length + 7.4 * subtitle.length);
  let { height } = made;
  if (types) {
    let x = MARGIN;
    for (const own of types.mix(0, types.leaves)) {
      const type = types.facts.types[own.type]!;
      const words = `${type.name} ${bytes(own.bytes)} (${count(own.count)})`;
      const wide = 34 + 6.6 * words.length;
      if (x > MARGIN && x + wide > width) {
        x = MARGIN;
        height += 18;
      }
      items.push({ kind: "fill", x, y: height, width: 10, height: 10, colour: typeColour(type, theme) });
      items.push({ kind: "text", text: words, x: x + 15, y: height + 9, size: 11, colour: theme.ink2 });
      x += wide;
    }
    height += 10 + MARGIN;
  }
  return { width, height, items, theme };
}

function boxOf({ x, y, width, height }: DOMRect): { x: number; y: number; width: number; height: number } {
  return { x, y, width, height };
}
