// The bridge between anywidget's model and the view: traits and messages on one side, GridData and State on the other.
// In: an AFM model (a notebook's, or that of an exported page). Out: a rendered view and its clean-up.
import type { AnyModel, Render } from "@anywidget/types";
import { Cleanup, Timer } from "../shared/dom";
import type { ThemeChoice } from "../shared/theme";
import { type Facts, type Filter, floats, GridData, type LayerFacts, type Matrix } from "./data";
import type { Scale } from "./scale";
import { AttentionGridView, HeadUnavailable, type Source, type State } from "./view";

interface Traits {
  facts: Facts;
  thumbnails: DataView;
  statistics: DataView;
  embedded: Record<string, number>;
  embedded_data: DataView[];
  selected_layer: number | null;
  selected_head: number | null;
  selected_tokens: number[];
  filter: Record<string, [number | null, number | null]>;
  scale: Scale;
  sink_aside: boolean;
  sort: string;
  theme: ThemeChoice;
}

type Model = AnyModel<Traits>;

/** What Python sends. */
type Message =
  | { type: "head"; id: string; layer: number; head: number; stage: string; rows: number; keys: number }
  | { type: "layer"; layer: number; done: number; total: number; facts?: LayerFacts }
  | { type: "state"; phase: Facts["phase"]; done: number; total: number; message: string }
  | { type: "error"; id: string; message: string };

/** A kernel that has not answered after this long is gone, or busy with a cell. */
const ANSWER = 3000;
/** What the host of an exported page answers to a request. */
const NO_KERNEL = "needs a kernel";
/** At most ten trait changes a second go to the kernel while something is dragged. */
const PACE = 100;
/** Weights of heads kept at hand (32 MB): 122 heads of 256 tokens, 2 of 2048. */
const KEEP = 8_000_000;

/** Exact matrices: embedded ones, those asked for before, and requests under way. */
class Heads {
  private readonly cache = new Map<string, Matrix>();
  private readonly waiting = new Map<
    string,
    { done(m: Matrix): void; fail(e: Error): void; timer: number }
  >();
  private readonly name = crypto.getRandomValues(new Uint32Array(1))[0]!.toString(36);
  private count = 0;

  constructor(
    private readonly model: Model,
    private readonly live: (live: boolean) => void,
  ) {}

  forget(): void {
    this.cache.clear();
  }

  get(layer: number, head: number): Matrix | Promise<Matrix> {
    const key = `${layer},${head}`;
    const cached = this.cache.get(key) ?? this.embedded(key);
    if (cached) return cached;
    if (!this.model.get("facts").live)
      return Promise.reject(new HeadUnavailable("no-kernel", "saved without a kernel"));
    return this.request({ type: "head", layer, head, stage: "softmax" });
  }

  /** Asks whether anybody is there: any answer will do. A page reopened from disk has nobody. */
  hello(): void {
    if (this.model.get("facts").live) this.request({ type: "ping" }).catch(() => undefined);
  }

  private request(message: Record<string, unknown>): Promise<Matrix> {
    const id = `${this.name}-${++this.count}`;
    return new Promise((done, fail) => {
      const timer = window.setInterval(() => this.overdue(id), ANSWER);
      this.waiting.set(id, { done, fail, timer });
      this.model.send({ ...message, id });
    });
  }

  private embedded(key: string): Matrix | undefined {
    const at = this.model.get("embedded")?.[key];
    const buffer = at === undefined ? undefined : this.model.get("embedded_data")?.[at];
    if (!buffer) return undefined;
    const data = floats(buffer);
    const keys = this.model.get("facts").n_tokens;
    const rows = data.length / keys;
    return Number.isInteger(rows) ? this.keep(key, { rows, keys, data }) : undefined;
  }

  private keep(key: string, matrix: Matrix): Matrix {
    this.cache.delete(key);
    this.cache.set(key, matrix);
    let size = [...this.cache.values()].reduce((sum, m) => sum + m.data.length, 0);
    for (const [oldest, m] of this.cache) {
      if (size <= KEEP || oldest === key) break;
      this.cache.delete(oldest);
      size -= m.data.length;
    }
    return matrix;
  }

  private overdue(id: string): void {
    const request = this.waiting.get(id);
    const computing = this.model.get("facts").phase === "computing";
    if (!request || computing || kernelBusy(this.model)) return;
    this.settle(id)?.fail(new HeadUnavailable("no-kernel", "no answer from the kernel"));
    this.live(false);
  }

  private settle(id: string) {
    const request = this.waiting.get(id);
    if (request) window.clearInterval(request.timer);
    this.waiting.delete(id);
    return request;
  }

  head(message: Extract<Message, { type: "head" }>, buffer: DataView | undefined): void {
    const key = `${message.layer},${message.head}`;
    if (message.stage !== "softmax" || !buffer) return;
    const data = floats(buffer);
    const request = this.settle(message.id);
    if (data.length !== message.rows * message.keys)
      request?.fail(
        new HeadUnavailable(
          "error",
          `${data.length} weights came, ${message.rows} \u00d7 ${message.keys} were announced`,
        ),
      );
    else request?.done(this.keep(key, { rows: message.rows, keys: message.keys, data }));
  }

  error(id: string, message: string): boolean {
    const request = this.settle(id);
    request?.fail(new HeadUnavailable(message === NO_KERNEL ? "no-kernel" : "error", message));
    return request !== undefined;
  }

  destroy(): void {
    for (const id of [...this.waiting.keys()]) this.settle(id);
  }
}

/** Whether the host says that the kernel is running a cell, so that silence means nothing. */
function kernelBusy(model: Model): boolean {
  const manager = model.widget_manager as unknown as { kernel?: { status?: string } | null } | undefined;
  return manager?.kernel?.status === "busy";
}

function readState(model: Model): State {
  return {
    layer: model.get("selected_layer") ?? null,
    head: model.get("selected_head") ?? null,
    tokens: model.get("selected_tokens") ?? [],
    filter: readFilter(model.get("filter"), model.get("facts")),
    scale: model.get("scale") ?? "log",
    sinkAside: model.get("sink_aside") ?? true,
    sort: model.get("sort") ?? "layer",
    theme: model.get("theme") ?? "auto",
  };
}

/** The filter with open ends as null: an end at or beyond its statistic's end restricts nothing. */
function readFilter(filter: Traits["filter"] | undefined, facts: Facts): Filter {
  const entries = Object.entries(filter ?? {}).map(([key, [lo, hi]]) => {
    const ends = facts.statistics.find((s) => s.key === key);
    const low = typeof lo === "number" && lo > (ends?.lo ?? -Infinity) ? lo : null;
    const high = typeof hi === "number" && hi < (ends?.hi ?? Infinity) ? hi : null;
    return [key, [low, high] as const] as const;
  });
  return Object.fromEntries(entries.filter(([, [lo, hi]]) => lo !== null || hi !== null));
}

/** Writes what the user changed into the traits. */
function writeState(model: Model, patch: Partial<State>): void {
  if ("layer" in patch) model.set("selected_layer", patch.layer ?? null);
  if ("head" in patch) model.set("selected_head", patch.head ?? null);
  if (patch.tokens) model.set("selected_tokens", [...patch.tokens]);
  if (patch.filter) model.set("filter", JSON.parse(JSON.stringify(patch.filter)));
  if (patch.scale) model.set("scale", patch.scale);
  if (patch.sinkAside !== undefined) model.set("sink_aside", patch.sinkAside);
  if (patch.sort) model.set("sort", patch.sort);
}

/** The trait `facts`, and what messages have said since it was set. */
class Told {
  private since: Partial<Facts> = {};

  constructor(private readonly model: Model) {}

  get facts(): Facts {
    return { ...this.model.get("facts"), ...this.since };
  }

  forget(): void {
    this.since = {};
  }

  hear(news: Partial<Facts>): void {
    this.since = { ...this.since, ...news };
  }

  /** What a layer really is (its mask, its window) is known when it has run. */
  hearLayer(own: LayerFacts): void {
    this.hear({ layers: this.facts.layers.map((l) => (l.layer === own.layer ? own : l)) });
  }
}

/** Runs `update` once after all that happens now: a lock changes two traits, new data three. */
function together(cleanup: Cleanup, update: () => void): () => void {
  let queued = false;
  let ended = false;
  cleanup.add(() => {
    ended = true;
  });
  return () => {
    if (queued) return;
    queued = true;
    queueMicrotask(() => {
      queued = false;
      if (!ended) update();
    });
  };
}

const STATES = [
  "selected_layer",
  "selected_head",
  "selected_tokens",
  "filter",
  "scale",
  "sink_aside",
  "sort",
  "theme",
] as const;

/** The source that a view reads from and writes to. */
function makeSource(model: Model, heads: Heads, cleanup: Cleanup): Source {
  const pace = new Timer(cleanup);
  return {
    matrix: (layer, head) => heads.get(layer, head),
    busy: () => kernelBusy(model),
    stop: () => model.send({ type: "stop" }),
    change(patch, final) {
      writeState(model, patch);
      if (!final && pace.running) return;
      if (!final) {
        pace.start(PACE, () => model.save_changes());
        return;
      }
      pace.stop();
      model.save_changes();
    },
  };
}

const render: Render<Traits> = ({ model, el }) => {
  const cleanup = new Cleanup();
  const root = document.createElement("div");
  el.append(root);
  const told = new Told(model);
  const makeData = () => GridData.from(told.facts, model.get("thumbnails"), model.get("statistics"));
  let data = makeData();
  const heads = new Heads(model, (live) => view.setLive(live));
  const view = new AttentionGridView(root, makeSource(model, heads, cleanup), data, readState(model));
  if (told.facts.live) heads.hello();
  else view.setLive(false);

  const listen = (event: string, handler: (...args: never[]) => void) => {
    model.on(event, handler as never);
    cleanup.add(() => model.off(event, handler as never));
  };
  const stateChanged = together(cleanup, () => view.setState(readState(model)));
  for (const name of STATES) listen(`change:${name}`, stateChanged);
  const dataChanged = together(cleanup, () => {
    data = makeData();
    view.setData(data);
    view.setLive(told.facts.live);
  });
  for (const name of ["thumbnails", "statistics"]) listen(`change:${name}`, dataChanged);
  listen("change:facts", () => {
    told.forget();
    heads.forget();
    dataChanged();
  });

  const news = (changes: Partial<Facts>) => {
    told.hear(changes);
    data = data.with(told.facts);
    view.setData(data);
  };
  const hear = (message: Message, buffers: DataView[]) => {
    if (told.facts.live) view.setLive(true);
    if (message.type === "head") heads.head(message, buffers[0]);
    if (message.type === "layer" && data.fill(message.layer, buffers[0], buffers[1])) {
      if (message.facts) told.hearLayer(message.facts);
      news({ done: message.done, total: message.total });
      view.layerArrived(message.layer);
    }
    if (message.type === "state") {
      const { phase, done, total, message: words } = message;
      news({ phase, done, total, message: words });
    }
    // An error without an address is the run's, if one is going on.
    const mine = message.type === "error" && !heads.error(message.id, message.message) && !message.id;
    if (mine && told.facts.phase === "computing") news({ phase: "error", message: message.message });
  };
  listen("msg:custom", hear as (...args: never[]) => void);

  return () => {
    cleanup.run();
    heads.destroy();
    view.destroy();
    root.remove();
  };
};

export default { render };
