// SmolLM2-135M on the lighthouse prompt, as the kernel sends it, and a model that behaves as anywidget's.
// Made by js/test/make_fixture.py; 30 layers x 9 heads x 24 tokens.
import { readFileSync } from "node:fs";
import { join } from "node:path";
import { type Facts, floats, GridData, type Matrix } from "../src/attention_grid/data";
import { type HeadFacts, Replay } from "../src/attention_grid/replay";

function file(name: string, of = "smollm2."): Buffer {
  return readFileSync(join(import.meta.dirname, "data", of + name));
}

/** A copy, because Node cuts small buffers from a larger one and their slices are no copies. */
const decoded = (text: string) => new Uint8Array(Buffer.from(text, "base64"));
const view = (b: Uint8Array) => new DataView(b.buffer, b.byteOffset, b.byteLength);

export const facts = JSON.parse(file("facts.json").toString("utf8")) as Facts;
export const thumbnails = view(file("thumbnails.bin"));
export const statistics = view(file("statistics.bin"));

interface StoredHead {
  facts: HeadFacts;
  buffers: string[];
  stages: Record<string, string>;
  tiles: Record<string, string>;
  sums: Record<"looks" | "seen", string>;
}

/** A head as the kernel sends it, and what Python replays of it: stages and tiles, masked cells NaN. */
export class FixtureHead {
  readonly facts: HeadFacts;
  readonly buffers: DataView[];

  constructor(private readonly stored: StoredHead) {
    this.facts = stored.facts;
    this.buffers = stored.buffers.map((text) => view(decoded(text)));
  }

  get replay(): Replay {
    return new Replay(this.facts, this.buffers);
  }

  stage(name: string): Float32Array {
    return floats(decoded(this.stored.stages[name]!));
  }

  tile(name: string): Float32Array {
    return floats(decoded(this.stored.tiles[name]!));
  }

  sums(direction: "looks" | "seen"): Float32Array {
    return floats(decoded(this.stored.sums[direction]));
  }
}

const stored = JSON.parse(file("heads.json", "").toString("utf8")) as Record<string, StoredHead>;
/** Heads of all kinds, by what is special about them; "smollm2" is layer 17 head 5. */
export const heads = new Map(Object.entries(stored).map(([name, s]) => [name, new FixtureHead(s)]));
export const head: FixtureHead = heads.get("smollm2")!;
export const matrix: Matrix = { rows: 24, keys: 24, data: head.stage("softmax") };

export function gridData(changes: Partial<Facts> = {}): GridData {
  return GridData.from({ ...facts, ...changes }, thumbnails, statistics);
}

type Listener = (...args: unknown[]) => void;

/** Traits, events and messages as the views see them; `sent` is what went to the kernel, pings aside. */
export class FakeModel {
  readonly sent: Record<string, unknown>[] = [];
  saves = 0;
  pings = 0;
  private readonly listeners: [string, Listener][] = [];
  widget_manager: unknown = undefined;
  readonly state: Record<string, unknown>;

  constructor(state: Record<string, unknown> = {}) {
    this.state = {
      facts,
      thumbnails,
      statistics,
      token_stats: new DataView(new ArrayBuffer(0)),
      embedded: {},
      embedded_data: [],
      selected_layer: null,
      selected_head: null,
      selected_tokens: [],
      filter: {},
      scale: "log",
      sink_aside: true,
      sort: "layer",
      theme: "light",
      ...state,
    };
  }

  get(name: string): unknown {
    return this.state[name];
  }

  set(name: string, value: unknown): void {
    const same = JSON.stringify(this.state[name]) === JSON.stringify(value);
    this.state[name] = value;
    if (!same) this.emit(`change:${name}`);
  }

  save_changes(): void {
    this.saves++;
  }

  send(message: Record<string, unknown>): void {
    if (message.type === "ping") this.pings++;
    else this.sent.push(message);
  }

  on(event: string, listener: Listener): void {
    this.listeners.push([event, listener]);
  }

  off(event: string, listener: Listener): void {
    const at = this.listeners.findIndex(([e, l]) => e === event && l === listener);
    if (at >= 0) this.listeners.splice(at, 1);
  }

  emit(event: string, ...args: unknown[]): void {
    for (const [e, l] of [...this.listeners]) if (e === event) l(...args);
  }

  /** A message from the kernel. */
  receive(message: Record<string, unknown>, ...buffers: DataView[]): void {
    this.emit("msg:custom", message, buffers);
  }

  /** The kernel's answer to the last request for a head. */
  answerHead(): void {
    const request = this.sent.filter((m) => m.type === "head").at(-1);
    this.receive({ ...request, ...head.facts }, ...head.buffers);
  }

  get listening(): number {
    return this.listeners.length;
  }
}
