// The bridge between anywidget's model and the view: traits and messages on one side, SpaceData and State on the other.
// In: an AFM model (a notebook's, or that of an exported page). Out: a rendered view and its clean-up.
import type { AnyModel, Render } from "@anywidget/types";
import { Cleanup } from "../shared/dom";
import { type Heard, Kernel, Unavailable } from "../shared/kernel";
import { together } from "../shared/model";
import type { ThemeChoice } from "../shared/theme";
import { type Facts, type Parts, SpaceData, typed } from "./data";
import { EmbeddingSpaceView, type Source, type State } from "./view";

interface Traits {
  facts: Facts;
  positions: DataView;
  moved: DataView;
  labels: DataView;
  ids: DataView;
  joined: DataView;
  cosines: DataView;
  columns: Parts["columns"];
  column_data: DataView[];
  embedded: Record<string, unknown>;
  embedded_data: DataView[];
  token: number | null;
  selected_tokens: number[];
  color: string;
  projection: "umap" | "pca";
  network: number | null;
  search: string;
  theme: ThemeChoice;
}

type Model = AnyModel<Traits>;

function readState(model: Model): State {
  return {
    token: model.get("token") ?? null,
    tokens: model.get("selected_tokens") ?? [],
    color: model.get("color") ?? "cluster",
    projection: model.get("projection") ?? "umap",
    network: model.get("network") ?? null,
    search: model.get("search") ?? "",
    theme: model.get("theme") ?? "auto",
  };
}

function writeState(model: Model, patch: Partial<State>): void {
  if ("token" in patch) model.set("token", patch.token ?? null);
  if (patch.tokens) model.set("selected_tokens", [...patch.tokens]);
  if (patch.color) model.set("color", patch.color);
  if (patch.projection) model.set("projection", patch.projection);
  if (patch.network !== undefined) model.set("network", patch.network);
  if (patch.search !== undefined) model.set("search", patch.search);
  model.save_changes();
}

const STATES = ["token", "selected_tokens", "color", "projection", "network", "search", "theme"] as const;
const DATA = [
  "facts",
  "positions",
  "moved",
  "labels",
  "ids",
  "joined",
  "cosines",
  "columns",
  "column_data",
  "embedded",
  "embedded_data",
] as const;

const render: Render<Traits> = ({ model, el }) => {
  const cleanup = new Cleanup();
  const root = document.createElement("div");
  el.append(root);
  const makeData = () =>
    new SpaceData({
      facts: model.get("facts"),
      positions: model.get("positions"),
      moved: model.get("moved"),
      labels: model.get("labels"),
      ids: model.get("ids"),
      joined: model.get("joined"),
      cosines: model.get("cosines"),
      columns: model.get("columns") ?? {},
      columnData: model.get("column_data") ?? [],
      embedded: model.get("embedded") ?? {},
      embeddedData: model.get("embedded_data") ?? [],
    });
  let data = makeData();
  const live = () => model.get("facts").live;
  const kernel = new Kernel(
    model as unknown as AnyModel,
    () => false,
    () => view.setLive(false),
  );
  const ask = (message: Record<string, unknown>) => {
    if (!live()) throw new Unavailable("no-kernel", "saved without a kernel");
    return kernel.ask(message);
  };
  const source: Source = {
    texts: async (rows) => {
      const { message } = await ask({ type: "texts", rows });
      data.putTexts(rows, message.texts as string[]);
    },
    search: async (text) => {
      const { message } = await ask({ type: "search", text, limit: 50 });
      return message as never;
    },
    token: async (row) => {
      const { message, buffers } = await ask({ type: "token", row });
      data.put({
        ...(message as never as { text: string; rows: number[]; texts: string[]; cosines: number[] }),
        row,
        vector: typed(Float32Array, buffers[0]),
        other: buffers.length > 1 ? typed(Float32Array, buffers[1]) : null,
      });
    },
    stop: () => model.send({ type: "stop" }),
    start: () => model.send({ type: "start" }),
    change: (patch) => writeState(model, patch),
  };
  const view = new EmbeddingSpaceView(root, source, data, readState(model));
  // Any answer says that somebody is there; a page reopened from disk has nobody.
  if (live()) kernel.ask({ type: "ping" }).catch(() => undefined);
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
  });
  for (const name of DATA) listen(`change:${name}`, dataChanged);
  const hear = (message: Heard, buffers: DataView[]) => {
    if (live()) view.setLive(true);
    kernel.hear(message, buffers);
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
