// What a study has measured: candidates, text blocks, drift, tokens, and the choice at every budget.
// In: traits as the kernel sends them (null = not measured). Out: typed rows, maps, the choice and the frontier.
import type { Look } from "../architecture_tree/colours";
import { bytes } from "../shared/format";

export interface Row extends Look {
  readonly name: string;
  readonly kind: "type" | "file" | "recipe" | "kv";
  readonly status: "waiting" | "running" | "done" | "failed" | "cancelled";
  readonly error: string;
  readonly got: string;
  readonly bytes: number | null;
  readonly bits_per_weight: number | null;
  readonly n_tokens: number | null;
  readonly kl: number | null;
  readonly kl_ci: number | null;
  readonly kl_99: number | null;
  readonly kl_999: number | null;
  readonly kl_max: number | null;
  readonly same_top: number | null;
  readonly same_top_error: number | null;
  readonly rms_dp: number | null;
  readonly ppl: number | null;
  readonly ppl_error: number | null;
  readonly ppl_ratio: number | null;
  readonly ppl_ratio_error: number | null;
  readonly prefill_tps: number | null;
  readonly prefill_spread: number | null;
  readonly decode_tps: number | null;
  readonly decode_spread: number | null;
  readonly memory_bytes: number | null;
  readonly speed_note: string;
}

/** What is recommended from a budget of `least` bytes on; the first is that of no budget. */
export interface Choice {
  readonly least: number | null;
  readonly name: string | null;
  readonly headline: string;
  readonly body: string;
  readonly reasons: readonly string[];
  readonly sure: string;
  readonly limits: readonly string[];
  readonly tie: readonly string[];
  readonly commands: Readonly<Record<string, string>>;
  readonly markdown: string;
}

export interface Base {
  readonly name: string;
  readonly bytes: number | null;
  readonly bits_per_weight: number | null;
  readonly perplexity: number | null;
  /** Where it was timed. */
  readonly decode_tps?: number | null;
}

/** A row of the per-text table. */
export interface TextRow {
  readonly candidate: string;
  readonly text: string;
  readonly kl: number | null;
  readonly kl_error: number | null;
  readonly same_top: number | null;
  readonly ppl_ratio: number | null;
}

export interface Facts {
  readonly title: string;
  readonly subtitle: string;
  readonly base: Base;
  readonly rows: readonly Row[];
  /** Candidate, text, block, KL. */
  readonly blocks: readonly (readonly [string, string, number, number | null])[];
  readonly texts: readonly TextRow[];
  readonly choices: readonly Choice[];
  /** Layers of the residual map; layers and heads of that of attention. */
  readonly shapes: readonly [number, number, number];
  readonly provenance: string;
  readonly details: Readonly<Record<string, string>>;
  readonly running: boolean;
  /** What the study does, or why it failed. */
  readonly progress: string;
  readonly live: boolean;
  readonly saved: string;
  readonly message: string;
}

/** Block, token, its probability in the base, in the candidate, KL, whether the likeliest token stayed. */
export type TokenRow = readonly [number, string, number, number, number, boolean];

/** A stretch of text, token by token, and the tokens that changed most: their place in the text, the text's name. */
export interface Strip {
  readonly candidate: string;
  readonly text: string;
  readonly first: number;
  readonly count: number;
  readonly tokens: readonly TokenRow[];
  readonly worst: readonly (readonly [...TokenRow, number, string])[];
}

export function isMeasured(row: Row): boolean {
  return row.kl !== null && row.status !== "failed";
}

export class ReportData {
  constructor(
    readonly facts: Facts,
    /** (candidates, layers) */
    readonly layers: Float32Array,
    /** (candidates, layers, heads) */
    readonly heads: Float32Array,
    readonly strips: Readonly<Record<string, Strip>>,
  ) {}

  /** Traits as they come; a buffer that does not fit its shape is not taken. */
  static from(
    facts: Facts,
    layers: DataView,
    heads: DataView,
    strips: Readonly<Record<string, Strip>>,
  ): ReportData {
    const [residual, attention, count] = facts.shapes;
    const n = facts.rows.length;
    return new ReportData(facts, floats(layers, n * residual), floats(heads, n * attention * count), strips);
  }

  row(name: string | null): Row | null {
    return this.facts.rows.find((r) => r.name === name) ?? null;
  }

  /** Candidates that were measured, in part where the study runs or was stopped. */
  get measured(): Row[] {
    return this.facts.rows.filter(isMeasured);
  }

  /** Those that are files of their own size: what the plot can place. */
  get placed(): Row[] {
    return this.measured.filter((r) => r.kind !== "kv" && r.bytes !== null);
  }

  /** What is recommended within a budget. */
  choice(budget: number | null): Choice | null {
    const { choices } = this.facts;
    if (choices.length === 0) return null;
    if (budget === null) return choices[0]!;
    const fitting = choices.filter((c) => c.least !== null && c.least <= budget);
    const own = fitting[fitting.length - 1];
    return own ? { ...own, body: own.body.replace("{budget}", bytes(budget)) } : null;
  }

  /** Mean over the heads that a layer has, per candidate and layer; NaN where none was measured. */
  get attention(): Float32Array {
    const [, layers, heads] = this.facts.shapes;
    const out = new Float32Array(this.facts.rows.length * layers).fill(Number.NaN);
    if (this.heads.length === 0) return out;
    for (let i = 0; i < out.length; i++) {
      const known = this.heads.subarray(i * heads, (i + 1) * heads).filter((v) => !Number.isNaN(v));
      if (known.length > 0) out[i] = known.reduce((a, b) => a + b, 0) / known.length;
    }
    return out;
  }

  /** (heads, layers) of one candidate; null where nothing was measured. */
  headsOf(name: string): Float32Array | null {
    const [, layers, heads] = this.facts.shapes;
    const at = this.facts.rows.findIndex((r) => r.name === name);
    if (at < 0 || this.heads.length === 0) return null;
    const out = new Float32Array(heads * layers);
    for (let layer = 0; layer < layers; layer++)
      for (let head = 0; head < heads; head++)
        out[head * layers + layer] = this.heads[(at * layers + layer) * heads + head]!;
    return out.some((v) => !Number.isNaN(v)) ? out : null;
  }
}

/** Candidates than which none is both smaller and closer, by size. */
export function frontier(rows: readonly Row[]): Row[] {
  const kept: Row[] = [];
  for (const row of [...rows].sort((a, b) => a.bytes! - b.bytes! || a.kl! - b.kl!))
    if (kept.length === 0 || row.kl! < kept[kept.length - 1]!.kl!) kept.push(row);
  return kept;
}

function floats(view: DataView | undefined, count: number): Float32Array {
  if (!view || view.byteLength !== 4 * count) return new Float32Array(0);
  const out = new Float32Array(count);
  for (let i = 0; i < count; i++) out[i] = view.getFloat32(4 * i, true);
  return out;
}
