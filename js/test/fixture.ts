// SmolLM2-135M on the lighthouse prompt, as the kernel sends it, and a model that behaves as anywidget's.
// Made by js/test/make_fixture.py; 30 layers x 9 heads x 24 tokens.
import { readFileSync } from "node:fs";
import { join } from "node:path";
import { type Facts, floats, GridData, type Matrix } from "../src/attention_grid/data";

function file(name: string): Buffer {
  return readFileSync(join(import.meta.dirname, "data", `smollm2.${name}`));
}

const view = (b: Buffer) => new DataView(b.buffer, b.byteOffset, b.byteLength);

export const facts = JSON.parse(file("facts.json").toString("utf8")) as Facts;
export const thumbnails = view(file("thumbnails.bin"));
export const statistics = view(file("statistics.bin"));
export const headBuffer = view(file("head-17-5.bin"));
export const matrix: Matrix = { rows: 24, keys: 24, data: floats(headBuffer) };

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
    this.receive({ ...request, rows: 24, keys: 24 }, headBuffer);
  }

  get listening(): number {
    return this.listeners.length;
  }
}
