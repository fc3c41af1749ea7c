// The bridge between anywidget's model and the view: traits and messages on one side, StripData and State on the other.
// In: an AFM model (a notebook's, or that of an exported page). Out: a rendered view and its clean-up.
import type { AnyModel, Render } from "@anywidget/types";
import { Cleanup } from "../shared/dom";
import { type Heard, Kernel, Unavailable } from "../shared/kernel";
import type { ThemeChoice } from "../shared/theme";
import { type Facts, type Measure, StripData } from "./data";
import { ExpertStripView, type Source, type State } from "./view";

interface Traits {
  facts: Facts;
  overview: DataView;
  measures: DataView;
  loads: DataView;
  embedded: number[];
  embedded_ids: DataView;
  embedded_weights: DataView;
  selected_layer: number | null;
  selected_tokens: number[];
  selected_expert: number | null;
  measure: Measure;
  theme: ThemeChoice;
}

type Model = AnyModel<Traits>;

function readState(model: Model): State {
  return {
    layer: model.get("selected_layer") ?? null,
    token: model.get("selected_tokens")?.[0] ?? null,
    expert: model.get("selected_expert") ?? null,
    measure: model.get("measure") ?? "experts",
    theme: model.get("theme") ?? "auto",
  };
}

function writeState(model: Model, patch: Partial<State>): void {
  if ("layer" in patch) model.set("selected_layer", patch.layer ?? null);
  if ("token" in patch) model.set("selected_tokens", typeof patch.token === "number" ? [patch.token] : []);
  if ("expert" in patch) model.set("selected_expert", patch.expert ?? null);
  if (patch.measure) model.set("measure", patch.measure);
  model.save_changes();
}

const STATES = ["selected_layer", "selected_tokens", "selected_expert", "measure", "theme"] as const;
const DATA = ["facts", "overview", "measures", "loads"] as const;
const EMBEDDED = ["embedded", "embedded_ids", "embedded_weights"] as const;

/** Runs `update` once after all that happens now: one choice changes several traits. */
function together(update: () => void): () => void {
  let queued = false;
  return () => {
    if (queued) return;
    queued = true;
    queueMicrotask(() => {
      queued = false;
      update();
    });
  };
}

const render: Render<Traits> = ({ model, el }) => {
  const cleanup = new Cleanup();
  const root = document.createElement("div");
  el.append(root);
  const takeEmbedded = (data: StripData) =>
    data.putAll(model.get("embedded") ?? [], model.get("embedded_ids"), model.get("embedded_weights"));
  const makeData = () => {
    const made = StripData.from(
      model.get("facts"),
      model.get("overview"),
      model.get("measures"),
      model.get("loads"),
    );
    takeEmbedded(made);
    return made;
  };
  let data = makeData();
  let ended = false;
  const live = () => model.get("facts").live;
  const kernel = new Kernel(
    model as unknown as AnyModel,
    () => false,
    () => view.setLive(false),
  );
  const ask = async (what: "layer" | "token", number: number) => {
    if (!live()) throw new Unavailable("no-kernel", "saved without a kernel");
    const mine = data;
    const { buffers } = await kernel.ask({ type: what, [what]: number });
    if (what === "layer") mine.put(number, buffers[0], buffers[1]);
    else mine.putToken(number, buffers[0], buffers[1]);
  };
  const source: Source = {
    layer: (layer) => ask("layer", layer),
    token: (token) => ask("token", token),
    change: (patch) => writeState(model, patch),
  };
  const view = new ExpertStripView(root, source, data, readState(model));
  // Any answer says that somebody is there; a page reopened from disk has nobody.
  if (live()) kernel.ask({ type: "ping" }).catch(() => undefined);
  else view.setLive(false);

  const listen = (event: string, handler: (...args: never[]) => void) => {
    model.on(event, handler as never);
    cleanup.add(() => model.off(event, handler as never));
  };
  const stateChanged = together(() => !ended && view.setState(readState(model)));
  for (const name of STATES) listen(`change:${name}`, stateChanged);
  const dataChanged = together(() => {
    if (ended) return;
    data = makeData();
    view.setData(data);
    view.setLive(live());
  });
  for (const name of DATA) listen(`change:${name}`, dataChanged);
  const embeddedChanged = together(() => {
    if (ended) return;
    takeEmbedded(data);
    view.setState(readState(model));
  });
  for (const name of EMBEDDED) listen(`change:${name}`, embeddedChanged);
  const hear = (message: Heard, buffers: DataView[]) => {
    if (live()) view.setLive(true);
    kernel.hear(message, buffers);
  };
  listen("msg:custom", hear as (...args: never[]) => void);

  return () => {
    ended = true;
    cleanup.run();
    kernel.destroy();
    view.destroy();
    root.remove();
  };
};

export default { render };
