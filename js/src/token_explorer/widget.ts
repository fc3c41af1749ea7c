// The bridge between anywidget's model and the view: traits and messages on one side, ExplorerData and State on the other.
// In: an AFM model (a notebook's, or that of an exported page). Out: a rendered view and its clean-up.
import type { AnyModel, Render } from "@anywidget/types";
import { Cleanup } from "../shared/dom";
import { type Heard, Kernel, Unavailable } from "../shared/kernel";
import { together } from "../shared/model";
import { ExplorerData, type Facts, type Node, type State } from "./data";
import { type Source, TokenExplorerView } from "./view";

interface Traits extends State {
  facts: Facts;
  nodes: Node[];
  words: Record<string, [string, string]>;
  here: number[];
  logits: DataView[];
}

type Model = AnyModel<Traits>;

const STATES = [
  "temperature",
  "top_k",
  "typical_p",
  "top_p",
  "min_p",
  "repeat_penalty",
  "seed",
  "node",
  "leaf",
  "selected_tokens",
  "theme",
] as const;
const DATA = ["facts", "nodes", "words", "here", "logits"] as const;
/** A dragged slider tells the kernel so often at most, in ms. */
const PACE = 100;

const readState = (model: Model) =>
  Object.fromEntries(STATES.map((name) => [name, model.get(name)])) as unknown as State;

const render: Render<Traits> = ({ model, el }) => {
  const cleanup = new Cleanup();
  const root = document.createElement("div");
  el.append(root);
  const data = new ExplorerData(model.get("facts"), model.get("words") ?? {});
  const take = () => {
    data.retell(model.get("facts"), model.get("nodes") ?? [], model.get("words") ?? {});
    data.put(model.get("here") ?? [], model.get("logits") ?? []);
  };
  take();
  let working = false;
  const live = () => model.get("facts").live;
  const kernel = new Kernel(
    model as unknown as AnyModel,
    () => working,
    () => view.setLive(false),
  );
  const ask = async (message: Record<string, unknown>) => {
    if (!live()) throw new Unavailable("no-kernel", "saved without a kernel");
    pending.tell();
    await kernel.ask(message);
  };
  const pending = new Pending(model);
  cleanup.add(() => pending.end());
  const long = async (message: Record<string, unknown>) => {
    working = true;
    try {
      await ask(message);
    } finally {
      working = false;
    }
  };
  const source: Source = {
    show: (node) => ask({ type: "show", node }),
    step: (node, token) => long({ type: "step", node, token }),
    // With the settings: the host may send a message before a change of traits that was made earlier.
    sample: (node, count) =>
      long({ type: "sample", node, count, settings: { ...readState(model), ...pending.patch } }),
    stop: () => model.send({ type: "stop" }),
    change(patch) {
      pending.put(patch);
      if ("node" in patch) pending.tell();
    },
  };
  const view = new TokenExplorerView(root, source, data, readState(model));
  // Any answer says that somebody is there; a page reopened from disk has nobody.
  if (live()) kernel.ask({ type: "ping" }).catch(() => undefined);
  else view.setLive(false);

  const listen = (event: string, handler: (...args: never[]) => void) => {
    model.on(event, handler as never);
    cleanup.add(() => model.off(event, handler as never));
  };
  const changed = together(cleanup, () => {
    take();
    view.setState({ ...readState(model), ...pending.patch });
  });
  for (const name of [...STATES, ...DATA]) listen(`change:${name}`, changed);
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

/**
 * Changes that the model has not been told of: at once, then at most every `PACE` ms, the last always. A trait that is set
 * and not sent would be set back by the kernel's echo of the one before.
 */
class Pending {
  patch: Partial<State> = {};
  private timer = 0;

  constructor(private readonly model: Model) {}

  put(patch: Partial<State>): void {
    this.patch = { ...this.patch, ...patch };
    if (this.timer) return;
    this.tell();
    this.timer = window.setTimeout(() => {
      this.timer = 0;
      if (Object.keys(this.patch).length > 0) this.put({});
    }, PACE);
  }

  tell(): void {
    const own = Object.entries(this.patch);
    if (own.length === 0) return;
    this.patch = {};
    for (const [name, value] of own) this.model.set(name as keyof State, value as never);
    this.model.save_changes();
  }

  end(): void {
    window.clearTimeout(this.timer);
    this.tell();
  }
}

export default { render };
