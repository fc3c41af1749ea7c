// Numbers and tokens as text, one way everywhere.
// In: numbers (NaN = no value), display strings of tokens. Out: strings for the screen.

const MINUS = "\u2212";
const DASH = "\u2013";

/** An attention weight or a statistic: three or two digits after the point, never per cent; a dash where there is none. */
export function weight(value: number, digits = 3): string {
  if (!Number.isFinite(value)) return DASH;
  const text = Math.abs(value).toFixed(digits);
  return value < 0 && Number(text) !== 0 ? MINUS + text : text;
}

/** An attention weight that may be tiny: small ones say so and are not rounded to zero. */
export function smallWeight(value: number): string {
  if (!Number.isFinite(value)) return DASH;
  if (value === 0) return "0";
  return value < 0.0005
    ? `<${value < 1e-6 ? "1e\u22126" : value < 0.0001 ? "0.0001" : "0.0005"}`
    : weight(value);
}

/** A probability: "78 %", "9.3 %", "0.78 %", "<1e−6"; a dash where there is none. */
export function probability(value: number): string {
  if (!Number.isFinite(value)) return DASH;
  if (value < 1e-6) return "<1e\u22126";
  const percent = 100 * value;
  const digits = percent >= 9.95 ? 0 : percent >= 0.995 ? 1 : percent >= 0.0995 ? 2 : 3;
  return percent < 0.0005 ? "<0.001\u202f%" : `${percent.toFixed(digits)}\u202f%`;
}

/** An end of a scale: as few digits as it needs ("0", "0.36", "1"). */
export function bound(value: number): string {
  if (!Number.isFinite(value)) return DASH;
  return String(Number(value.toFixed(2))).replace("-", MINUS);
}

/** A count with thin no-break spaces: 49 152. */
export function count(value: number): string {
  return String(Math.round(value)).replace(/\B(?=(\d{3})+$)/g, "\u202f");
}

/** A token's index as subscript digits: 23 -> ₂₃. */
export function subscript(index: number): string {
  return [...String(index)].map((d) => String.fromCharCode(0x2080 + Number(d))).join("");
}

/** A token cut for an axis: 12 characters at most, whole characters only. */
export function shorten(token: string, most = 12): string {
  const characters = [...token];
  return characters.length <= most ? token : `${characters.slice(0, most - 1).join("")}\u2026`;
}

/** A token as it stands in running text: its leading "·" is a space again. A token that is only "·" is a real dot. */
export function running(token: string): string {
  return token.startsWith("\u00b7") && token.length > 1 ? ` ${token.slice(1)}` : token;
}

/** "1 head", "2 heads". */
export function plural(n: number, word: string): string {
  return `${count(n)} ${word}${n === 1 ? "" : "s"}`;
}

/** Bytes in decimal units, three figures: "832 B", "2.3 kB", "652 kB", "98.4 MB". */
export function bytes(value: number): string {
  if (!Number.isFinite(value)) return DASH;
  const sign = value < 0 ? MINUS : "";
  let rest = Math.abs(value);
  if (rest < 999.5) return `${sign}${Math.round(rest)}\u202fB`;
  for (const unit of ["kB", "MB", "GB", "TB"]) {
    rest /= 1000;
    if (rest < 999.5 || unit === "TB") return `${sign}${rest.toFixed(rest < 99.95 ? 1 : 0)}\u202f${unit}`;
  }
  return DASH;
}

/** A large count in words: "885 k", "134.5 M". */
export function amount(value: number): string {
  if (value < 9999.5) return count(value);
  for (const [unit, size] of [
    ["T", 1e12],
    ["G", 1e9],
    ["M", 1e6],
  ] as const)
    if (value >= 0.99995 * size) return `${(value / size).toFixed(1)}\u202f${unit}`;
  return `${Math.round(value / 1000)}\u202fk`;
}
