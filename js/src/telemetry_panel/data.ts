// What the panel shows, as it comes from Python, and what follows from it.
// In: traits. Out: typed values; NaN and null = not measured.

export type Phase = "waiting" | "prefill" | "decode" | "done" | "failed";

export interface Overhead {
  readonly repeats: number;
  readonly prefill_ratio: number;
  readonly prefill_seconds: number;
  readonly plain_prefill_seconds: number;
  readonly decode_ratio?: number;
  readonly decode_seconds?: number;
  readonly plain_decode_seconds?: number;
}

type Figure = number | null;

export interface Numbers {
  readonly decode?: Figure;
  readonly first?: Figure;
  readonly prefill?: Figure;
  readonly prefill_ms?: Figure;
  readonly load?: Figure;
  readonly reduce?: Figure;
  readonly total?: Figure;
  readonly memory?: Figure;
  readonly kernel?: Figure;
  readonly used?: Figure;
  readonly size?: Figure;
  readonly threads?: Figure;
  readonly prefill_threads?: Figure;
  readonly decode_threads?: Figure;
  readonly between?: Readonly<Record<string, number>>;
  readonly overhead?: Overhead | null;
}

export interface Place {
  readonly place: string;
  readonly total: number;
  readonly parts: readonly { readonly owner: string; readonly label: string; readonly bytes: number }[];
  readonly note: string;
}

export interface Run {
  readonly phase: Phase;
  readonly message: string;
  readonly name: string;
  readonly provenance: string;
  readonly details: Readonly<Record<string, string>>;
  readonly saved: string | null;
  readonly prompt: number;
  readonly device: string;
  readonly numbers: Numbers;
  readonly memory: readonly Place[];
}

export interface FigureFact {
  readonly name: string;
  readonly device: string;
  readonly label: string;
  readonly unit: string;
  readonly note: string;
}

export interface Facts {
  readonly title: string;
  readonly live: boolean;
  readonly provenance: string;
  readonly runs: readonly Run[];
  readonly source: {
    readonly title: string;
    readonly facts: Readonly<Record<string, string>>;
    readonly notes: Readonly<Record<string, string>>;
  } | null;
  readonly figures: readonly FigureFact[];
  readonly no_gpu: string | null;
}

/** Milliseconds of a prompt's operations, run one by one. Each `ms` has one value for each of `kinds`. */
export interface OperationTimes {
  readonly kinds: readonly string[];
  readonly layers: readonly {
    readonly part: string;
    readonly stage: "input" | "layers" | "output";
    readonly layer: number | null;
    readonly ms: readonly number[];
  }[];
  /** The costliest first. */
  readonly operations: readonly {
    readonly op: string;
    readonly count: number;
    readonly ms: readonly number[];
  }[];
  readonly ms: number;
  /** The same prompt without stops. */
  readonly whole_ms: number;
  readonly tokens: number;
  readonly repeats: number;
  readonly provenance: string;
}

/** Rows of a run's series. */
const ROWS = 3;

/** One run's tokens. */
export class Tokens {
  readonly count: number;
  readonly ms: Float32Array;
  readonly threads: Float32Array;
  readonly bits: Float32Array;

  constructor(
    readonly words: readonly string[],
    view: DataView | undefined,
  ) {
    const bytes = view ? view.buffer.slice(view.byteOffset, view.byteOffset + view.byteLength) : undefined;
    const all = new Float32Array(bytes ?? new ArrayBuffer(0));
    // Words and times come in one update; where an older host splits them, only what both have is shown.
    const n = Math.floor(all.length / ROWS);
    this.count = Math.min(n, words.length);
    [this.ms, this.threads, this.bits] = [0, 1, 2].map((r) => all.slice(r * n, r * n + this.count)) as [
      Float32Array,
      Float32Array,
      Float32Array,
    ];
  }
}

export class PanelData {
  readonly runs: readonly Tokens[];
  /** Seconds since 1970, and one array for each of `facts.figures`. */
  readonly times: Float64Array;
  readonly values: readonly Float64Array[];
  /** Null where nothing was timed. */
  readonly operations: OperationTimes | null;

  constructor(
    readonly facts: Facts,
    words: readonly (readonly string[])[],
    series: readonly DataView[],
    samples: DataView | undefined,
    times: Partial<OperationTimes> = {},
  ) {
    this.operations = times.layers ? (times as OperationTimes) : null;
    this.runs = facts.runs.map((_, at) => new Tokens(words[at] ?? [], series[at]));
    const rows = facts.figures.length + 1;
    const bytes = samples?.buffer.slice(samples.byteOffset, samples.byteOffset + samples.byteLength);
    const all = new Float64Array(bytes ?? new ArrayBuffer(0));
    const n = Math.floor(all.length / rows);
    const row = (at: number) => all.slice(at * n, (at + 1) * n);
    this.times = row(0);
    this.values = facts.figures.map((_, at) => row(at + 1));
  }

  /** A live source is shown, not a run. */
  get isSource(): boolean {
    return this.facts.runs.length === 0;
  }

  /** The source was read and told nothing. */
  get isSilent(): boolean {
    return (
      this.isSource && this.times.length > 0 && !this.values.some((_, at) => Number.isFinite(this.last(at)))
    );
  }

  /** Written tokens of the longest run. */
  get count(): number {
    return Math.max(0, ...this.runs.map((run) => run.count));
  }

  /** The latest value of a figure; NaN where it cannot be read. */
  last(at: number): number {
    const own = this.values[at];
    return own?.[own.length - 1] ?? Number.NaN;
  }

  /** Where a figure stands, -1 where it does not. */
  find(name: string, device = ""): number {
    return this.facts.figures.findIndex((f) => f.name === name && f.device === device);
  }
}

/** Where an axis from 0 ends: 1, 2 or 5 times a power of ten. */
export function topOf(most: number): number {
  if (!(most > 0) || !Number.isFinite(most)) return 1;
  const power = 10 ** Math.floor(Math.log10(most));
  return [1, 2, 5, 10].map((s) => s * power).find((s) => s >= most * (1 - 1e-9)) ?? most;
}

/** A value so that this share of the others is below it. */
export function quantile(values: ArrayLike<number>, share: number): number {
  const known = Array.from(values)
    .filter((v) => Number.isFinite(v))
    .sort((a, b) => a - b);
  if (known.length === 0) return Number.NaN;
  const at = share * (known.length - 1);
  const low = Math.floor(at);
  const high = Math.min(known.length - 1, low + 1);
  return known[low]! + (known[high]! - known[low]!) * (at - low);
}
