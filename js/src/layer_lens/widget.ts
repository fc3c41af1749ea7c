// The bridge between anywidget's model and the view: traits and messages on one side, LensData and State on the other.
// In: an AFM model (a notebook's, or that of an exported page). Out: a rendered view and its clean-up.
import type { AnyModel, Render } from "@anywidget/types";
import { Cleanup } from "../shared/dom";
import { type Heard, Kernel, Unavailable } from "../shared/kernel";
import type { ThemeChoice } from "../shared/theme";
import { type Facts, LensData, type Measure, type Push } from "./data";
import { LayerLensView, type Source, type State } from "./view";

interface Traits {
  facts: Facts;
  streams: DataView;
  embedded: number[];
  embedded_lens: DataView[];
  words: Record<string, string>;
  push: Push | Record<string, never>;
  push_heads: DataView;
  selected_layer: number | null;
  selected_head: number | null;
  selected_tokens: number[];
  at_embedding: boolean;
  word: number | null;
  against: number | null;
  measure: Measure;
  every: 1 | 2 | 4 | null;
  theme: ThemeChoice;
}

type Model = AnyModel<Traits>;

function readState(model: Model): State {
  return {
    layer: model.get("selected_layer") ?? null,
    head: model.get("selected_head") ?? null,
    token: model.get("selected_tokens")?.[0] ?? null,
    embedding: model.get("at_embedding") ?? false,
    word: model.get("word") ?? null,
    against: model.get("against") ?? null,
    measure: model.get("measure") ?? "probability",
    every: model.get("every") ?? null,
    theme: model.get("theme") ?? "auto",
  };
}

const TRAIT = {
  layer: "selected_layer",
  head: "selected_head",
  embedding: "at_embedding",
  word: "word",
  against: "against",
  measure: "measure",
  every: "every",
  theme: "theme",
} as const;

function writeState(model: Model, patch: Partial<State>): void {
  for (const [name, value] of Object.entries(patch)) {
    if (name === "token") model.set("selected_tokens", typeof value === "number" ? [value] : []);
    else model.set(TRAIT[name as keyof typeof TRAIT], value as never);
  }
  model.save_changes();
}

const STATES = [...Object.values(TRAIT), "selected_tokens"] as const;
const EMBEDDED = ["embedded", "embedded_lens", "words", "facts", "streams", "push", "push_heads"] as const;

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
  const data = LensData.from(model.get("facts"), model.get("streams"));
  const take = () => {
    data.retell(model.get("facts"), model.get("streams"));
    const rows = model.get("facts").rows;
    data.put(model.get("embedded") ?? [], rows, model.get("words") ?? {}, model.get("embedded_lens") ?? []);
    data.putPush((model.get("push") ?? null) as Push | null, model.get("push_heads"));
  };
  take();
  let ended = false;
  const live = () => model.get("facts").live;
  const kernel = new Kernel(
    model as unknown as AnyModel,
    () => false,
    () => view.setLive(false),
  );
  const ask = (message: Record<string, unknown>, heard?: (share: number) => void) => {
    if (!live()) return Promise.reject(new Unavailable("no-kernel", "saved without a kernel"));
    return kernel.ask(message, heard);
  };
  const source: Source = {
    async window(first, stop, heard) {
      const { message, buffers } = await ask({ type: "window", positions: [first, stop] }, heard);
      const told = message as unknown as {
        positions: number[];
        rows: number[];
        words: Record<string, string>;
      };
      data.put(told.positions, told.rows, told.words, buffers);
    },
    async push(position, word, against) {
      const { message, buffers } = await ask({ type: "push", position, word, against });
      data.putPush((message as unknown as { push: Push }).push, buffers[0]);
    },
    stop: () => model.send({ type: "stop" }),
    change: (patch) => writeState(model, patch),
  };
  const view = new LayerLensView(root, source, data, readState(model));
  // Any answer says that somebody is there; a page reopened from disk has nobody.
  if (live()) kernel.ask({ type: "ping" }).catch(() => undefined);
  else view.setLive(false);

  const listen = (event: string, handler: (...args: never[]) => void) => {
    model.on(event, handler as never);
    cleanup.add(() => model.off(event, handler as never));
  };
  const stateChanged = together(() => !ended && view.setState(readState(model)));
  for (const name of STATES) listen(`change:${name}`, stateChanged);
  const embeddedChanged = together(() => {
    if (ended) return;
    take();
    view.setData(data);
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
