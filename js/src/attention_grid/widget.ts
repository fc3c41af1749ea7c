// The bridge between anywidget's model and the view: traits and messages on one side, GridData and State on the other.
// In: an AFM model (a notebook's, or that of an exported page). Out: a rendered view and its clean-up.
import type { AnyModel, Render } from "@anywidget/types";
import { Cleanup, Timer } from "../shared/dom";
import { type Heard, Kernel } from "../shared/kernel";
import { together } from "../shared/model";
import type { ThemeChoice } from "../shared/theme";
import { type Facts, type Filter, GridData, type LayerFacts } from "./data";
import { type GrowMessage, grow } from "./growth";
import { type Embedded, Heads } from "./heads";
import type { Scale } from "./scale";
import { AttentionGridView, type Source, type State } from "./view";

interface Traits {
  facts: Facts;
  thumbnails: DataView;
  statistics: DataView;
  token_stats: DataView;
  embedded: Embedded;
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

/** What Python sends unasked. */
type News =
  | { type: "layer"; layer: number; done: number; total: number; facts?: LayerFacts }
  | GrowMessage
  | { type: "state"; phase: Facts["phase"]; done: number; total: number; message: string }
  | { type: "error"; id: string; message: string };

/** At most ten trait changes a second go to the kernel while something is dragged. */
const PACE = 100;

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
function makeSource(model: Model, kernel: Kernel, heads: Heads, cleanup: Cleanup): Source {
  const pace = new Timer(cleanup);
  return {
    head: (layer, head) => heads.get(layer, head),
    tile: (layer, head, stage, rows, keys, size) => heads.tile(layer, head, stage, rows, keys, size),
    sums: (tokens, direction, which, how, heard) => heads.sums(tokens, direction, which, how, heard),
    tokenStats: async () => void (await kernel.ask({ type: "token_stats" })),
    busy: () => kernel.busy,
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
  const makeData = () =>
    GridData.from(told.facts, model.get("thumbnails"), model.get("statistics"), model.get("token_stats"));
  let data = makeData();
  const setLive = (live: boolean) => {
    heads.gone = !live;
    view.setLive(live);
  };
  const patient = () => told.facts.phase === "computing" || told.facts.phase === "generating";
  const kernel = new Kernel(model as unknown as AnyModel, patient, () => setLive(false));
  const heads = new Heads(
    {
      live: () => told.facts.live,
      all: () => data.heads.map((own) => [own.layer, own.head] as const),
      embedded: () => model.get("embedded") ?? {},
      data: () => model.get("embedded_data") ?? [],
    },
    kernel,
  );
  const view = new AttentionGridView(root, makeSource(model, kernel, heads, cleanup), data, readState(model));
  // Any answer says that somebody is there; a page reopened from disk has nobody.
  if (told.facts.live) kernel.ask({ type: "ping" }).catch(() => undefined);
  else setLive(false);

  const listen = (event: string, handler: (...args: never[]) => void) => {
    model.on(event, handler as never);
    cleanup.add(() => model.off(event, handler as never));
  };
  const stateChanged = together(cleanup, () => view.setState(readState(model)));
  for (const name of STATES) listen(`change:${name}`, stateChanged);
  const dataChanged = together(cleanup, () => {
    data = makeData();
    view.setData(data);
    setLive(told.facts.live);
  });
  for (const name of ["thumbnails", "statistics", "token_stats"]) listen(`change:${name}`, dataChanged);
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
  const hear = (message: Heard, buffers: DataView[]) => {
    if (told.facts.live) setLive(true);
    if (!kernel.hear(message, buffers)) hearNews(message as News, buffers);
  };
  const hearNews = (message: News, buffers: DataView[]) => {
    if (message.type === "layer" && data.fill(message.layer, buffers[0], buffers[1])) {
      if (message.facts) told.hearLayer(message.facts);
      news({ done: message.done, total: message.total });
      view.layerArrived(message.layer);
    }
    if (message.type === "grow") {
      const more = grow(data, message, buffers[0]);
      if (more) {
        heads.forget();
        news(more);
        view.rowsArrived();
      } else model.send({ type: "resync" });
    }
    if (message.type === "state") {
      const { phase, done, total, message: words } = message;
      news({ phase, done, total, message: words });
    }
    // An error without an address is the run's, if one is going on.
    if (message.type === "error" && !message.id && patient())
      news({ phase: "error", message: message.message });
  };
  listen("msg:custom", hear as (...args: never[]) => void);

  return () => {
    cleanup.run();
    kernel.destroy();
    view.destroy();
    root.remove();
  };
};

export default { render };
