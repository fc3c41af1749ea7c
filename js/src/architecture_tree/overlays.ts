// What the colours of the map can stand for: quant types, bits, bytes, and what Python measured.
// In: models, a theme. Out: overlays, their legend.
import { css } from "../shared/colour";
import { h } from "../shared/dom";
import { bytes, weight } from "../shared/format";
import type { Theme } from "../shared/theme";
import type { Overlay } from "./colours";
import type { TreeData } from "./data";
import { time } from "./graph";
import { figure } from "./values";
import type { Models } from "./view";

/** All overlays of a model; those that were measured are of A, and shown where it is alone. */
export function overlaysOf(models: Models, data: TreeData, textures: string, alone: boolean): Overlay[] {
  const typed: Overlay = {
    name: "type",
    label: "Quant type",
    words: textures,
    values: null,
    scale: "type",
    low: 0,
    high: 0,
    write: String,
  };
  const made = [typed, bitsOverlay(data), bytesOverlay(data)];
  if (!alone) return made;
  models.facts.overlays.forEach((own, i) => {
    const values = models.overlays[i];
    const write = WRITE[own.name] ?? ((v: number) => weight(v, 2));
    if (values) made.push(quantity(own.name, own.label, own.words, values, "linear", write));
  });
  return made;
}

const WRITE: Readonly<Record<string, (value: number) => string>> = {
  time: (ms) => time(ms / 1e3),
  error: figure,
};

export function quantity(
  name: string,
  label: string,
  words: string,
  values: Float32Array,
  scale: "linear" | "root",
  write: (v: number) => string,
  least = 0,
): Overlay {
  let high = least;
  for (const v of values) if (v > high) high = v;
  return { name, label, words, values, scale, low: 0, high: high || 1, write };
}

/** Bits per weight; the scale ends where the weights do that matter: norms of 32 bits would leave it all one colour. */
function bitsOverlay(data: TreeData): Overlay {
  const values = new Float32Array(data.leaves);
  const most = 0.01 * data.bytes[0]!;
  const large = new Map<number, number>();
  for (let leaf = 0; leaf < data.leaves; leaf++) {
    values[leaf] = data.leafType[leaf]! < 0 ? Number.NaN : data.leafBits(leaf);
    large.set(values[leaf]!, (large.get(values[leaf]!) ?? 0) + data.leafBytes[leaf]!);
  }
  const ends = [...large].filter(([bits, own]) => own >= most && !Number.isNaN(bits)).map(([bits]) => bits);
  const high = Math.max(...ends, 1);
  return {
    name: "bits",
    label: "Bits",
    words: "bits per weight",
    values,
    scale: "linear",
    low: 0,
    high,
    write: (v) => (Number.isNaN(v) ? "\u2013" : v.toFixed(2)),
  };
}

function bytesOverlay(data: TreeData): Overlay {
  const values = Float32Array.from(data.leafBytes, (v, leaf) => (data.leafType[leaf]! < 0 ? Number.NaN : v));
  return quantity("bytes", "Bytes", "bytes of the tensor, root scale", values, "root", bytes);
}

/** The same overlay of the other file. */
export function ofOther(same: Overlay, data: TreeData): Overlay {
  const { name } = same;
  return name === "bits"
    ? { ...bitsOverlay(data), high: same.high }
    : name === "bytes"
      ? { ...bytesOverlay(data), high: same.high }
      : same;
}

/** What the colours of an overlay mean. */
export function sequentialLegend(overlay: Overlay, theme: Theme): HTMLElement {
  const ramp = h("div", { class: "lt-ramp" });
  const stops = Array.from({ length: 9 }, (_, i) => css(theme.sequential[Math.round((i / 8) * 255)]!));
  ramp.style.background = `linear-gradient(to right, ${stops.join(",")})`;
  const ticks = h("div", { class: "lt-ticks" });
  for (const at of [0, 0.5, 1]) {
    const share = overlay.scale === "root" ? at * at : at;
    const mark = h(
      "span",
      { class: at === 1 ? "lt-end" : "" },
      overlay.write(overlay.low + share * (overlay.high - overlay.low)),
    );
    mark.style.left = `${100 * at}%`;
    if (at === 0) mark.style.transform = "none";
    ticks.append(mark);
  }
  return h(
    "div",
    { class: "lt-legend" },
    h("div", { class: "lt-scale" }, ramp, ticks),
    h("div", { class: "lt-quiet" }, overlay.words),
  );
}
