// The bars and the written tokens on a canvas, for pictures.
// In: data, a result, a theme, the colours of the filters. Out: a canvas.
import { contrast, css } from "../shared/colour";
import { count, probability, running, shorten } from "../shared/format";
import type { Theme } from "../shared/theme";
import { along } from "./bars";
import type { Filter, Result } from "./chain";
import type { ExplorerData } from "./data";
import { bits, NAMES } from "./words";
import { shade } from "./written";

const ROW = 20;
const LEFT = 110;
const RIGHT = 150;

export interface Shown {
  readonly data: ExplorerData;
  readonly node: number;
  readonly leaf: number;
  readonly result: Result;
  readonly rows: number;
  readonly theme: Theme;
  readonly hues: Readonly<Record<Filter, string>>;
}

function canvas(width: number, height: number, ratio: number, theme: Theme) {
  const made = document.createElement("canvas");
  made.width = Math.round(width * ratio);
  made.height = Math.round(height * ratio);
  made.style.width = `${width}px`;
  made.style.height = `${height}px`;
  const pen = made.getContext("2d")!;
  pen.scale(ratio, ratio);
  pen.fillStyle = css(theme.paper);
  pen.fillRect(0, 0, width, height);
  return { made, pen };
}

export function paintBars(s: Shown, width: number, ratio: number): HTMLCanvasElement {
  const { data, result, theme } = s;
  const d = data.chain(s.node)!.distribution;
  const ids = [...d.order.subarray(0, s.rows)];
  const { made, pen } = canvas(width, ids.length * ROW + 24, ratio, theme);
  const room = width - LEFT - RIGHT;
  const most = Math.max(d.probabilities[ids[0]!]!, result.probability(result.order[result.left[0]]!));
  const write = (text: string, x: number, y: number, colour: string, right = true, font = theme.sans) => {
    pen.font = `12px ${font}`;
    pen.textAlign = right ? "right" : "left";
    pen.fillStyle = colour;
    pen.fillText(text, x, y);
  };
  let held = 0;
  ids.forEach((id, i) => {
    const y = i * ROW;
    const p = d.probabilities[id]!;
    held += p;
    const cut = result.cutBy(id);
    const left = cut === null && result.probability(id) > 0;
    const hue = cut ? s.hues[cut] : css(theme.ink);
    write(shorten(data.word(id)), LEFT - 10, y + 14, css(left ? theme.ink : theme.ink3), true, theme.mono);
    pen.fillStyle = left ? css(theme.line2) : hue;
    pen.globalAlpha = left ? 1 : 0.45;
    pen.fillRect(LEFT, y + 3, Math.max(1, room * along(p, most)), left ? 5 : 13);
    pen.globalAlpha = 1;
    if (left) {
      pen.fillStyle = css(theme.ink);
      pen.fillRect(LEFT, y + 9, Math.max(1, room * along(result.probability(id), most)), 7);
    }
    write(probability(p), width - 74, y + 14, css(theme.ink3));
    write(left ? probability(result.probability(id)) : NAMES[cut ?? "temperature"], width, y + 14, hue);
  });
  const more = d.size - ids.length;
  if (more > 0) {
    const words = `and ${count(more)} more tokens, together ${probability(Math.max(0, 1 - held))}`;
    write(words, LEFT, ids.length * ROW + 16, css(theme.ink3), false);
  }
  return made;
}

/** Null where nothing was written. */
export function paintWritten(s: Shown, width: number, ratio: number): HTMLCanvasElement | null {
  const nodes = s.data.path(s.leaf).map((at) => s.data.nodes[at]!);
  if (nodes.length === 0) return null;
  const font = `12px ${s.theme.mono}`;
  const measure = document.createElement("canvas").getContext("2d")!;
  measure.font = font;
  let [x, y] = [0, 0];
  const placed = nodes.map((node) => {
    const text = running(node.text);
    const wide = measure.measureText(text).width + 6;
    if (x + wide > width && x > 0) [x, y] = [0, y + 26];
    const at = { node, text, x, y, wide };
    x += wide + 2;
    return at;
  });
  const { made, pen } = canvas(width, y + 24, ratio, s.theme);
  pen.font = font;
  for (const { node, text, x, y, wide } of placed) {
    const colour = shade(s.theme, bits(node.probability));
    pen.fillStyle = css(colour);
    pen.fillRect(x, y, wide, 20);
    const { ink, paper } = s.theme;
    pen.fillStyle = css(contrast(ink, colour) >= contrast(paper, colour) ? ink : paper);
    pen.fillText(text, x + 3, y + 14);
  }
  return made;
}
