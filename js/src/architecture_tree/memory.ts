// Will it fit? Memory by owner and by context length, layers to offload, commands to copy, as llama.cpp plans it.
// In: the trait `plan`. Out: DOM, and what was asked for: context, type of the KV cache, memory of a GPU.
import { type Cleanup, copyText, h } from "../shared/dom";
import { bytes, count, plural } from "../shared/format";

export interface Plan {
  readonly n_ctx: number;
  readonly kv_type: string;
  readonly owners: Readonly<Record<string, number>>;
  readonly total: number;
  readonly gpu_bytes: number | null;
  readonly gpu_layers: number | null;
  readonly layers: number;
  readonly contexts: readonly (readonly [n_ctx: number, total: number])[];
  readonly server: string;
  readonly modelfile: string;
}

export interface Wish {
  readonly n_ctx: number | null;
  readonly kv_type: string;
  readonly gpu: string;
}

const OWNERS: readonly (readonly [key: string, label: string])[] = [
  ["weights", "weights"],
  ["kv", "KV cache"],
  ["recurrent", "recurrent state"],
  ["compute", "computation"],
  ["output", "logits"],
];
const KV_TYPES = ["f16", "q8_0", "q5_1", "q4_0"];

export class MemoryPanel {
  readonly element = h("section", { class: "lt-at-memory", "aria-label": "Will it fit?" });
  private readonly context = h("input", {
    class: "lt-at-input",
    inputmode: "numeric",
    "aria-label": "Tokens of the context",
  });
  private readonly kv = h("select", { class: "lt-select", "aria-label": "Type of the KV cache" });
  private readonly gpu = h("input", {
    class: "lt-at-input",
    placeholder: "e.g. 8GB",
    "aria-label": "Memory of the GPU",
  });
  private readonly button = h("button", { type: "button", class: "lt-button" }, "Plan");
  private readonly state = h("span", { class: "lt-quiet", role: "status" });
  private readonly body = h("div", {});
  private plan: Plan | null = null;
  private busy = false;

  constructor(
    private readonly ask: (wish: Wish) => Promise<void>,
    private readonly cleanup: Cleanup,
  ) {
    for (const type of KV_TYPES) this.kv.append(h("option", { value: type }, type));
    const label = (words: string, field: HTMLElement) => h("label", {}, h("span", {}, words), field);
    this.element.append(
      h(
        "h3",
        {},
        h("b", {}, "Will it fit?"),
        "llama.cpp\u2019s own plan, from a dry run that loads nothing: estimates",
      ),
      h(
        "div",
        { class: "lt-at-wish" },
        label("context", this.context),
        label("KV cache", this.kv),
        label("GPU memory", this.gpu),
        this.button,
        this.state,
      ),
      this.body,
    );
    cleanup.on(this.button, "click", () => this.run());
  }

  /** `why` says why nothing new can be planned; empty where it can. */
  show(plan: Plan | null, why: string): void {
    const fields = [this.context, this.kv, this.gpu, this.button];
    for (const field of fields) field.toggleAttribute("disabled", why !== "" || this.busy);
    if (why !== "") this.state.textContent = why;
    if (plan === this.plan) return;
    this.plan = plan;
    if (!plan) return;
    this.context.value = String(plan.n_ctx);
    this.kv.value = plan.kv_type;
    this.draw(plan);
  }

  /** Enter in one of the fields plans; whether it was one. */
  enter(target: HTMLElement): boolean {
    if (target !== this.context && target !== this.gpu) return false;
    this.run();
    return true;
  }

  private run(): void {
    if (this.busy) return;
    const tokens = Number.parseInt(this.context.value, 10);
    this.busy = true;
    this.state.textContent = "planning\u2026";
    this.button.toggleAttribute("disabled", true);
    this.ask({
      n_ctx: Number.isNaN(tokens) ? null : tokens,
      kv_type: this.kv.value,
      gpu: this.gpu.value.trim(),
    })
      .then(
        () => {
          this.state.textContent = "";
        },
        (error: Error) => {
          this.state.textContent = error.message;
        },
      )
      .finally(() => {
        this.busy = false;
        this.button.toggleAttribute("disabled", false);
      });
  }

  private draw(plan: Plan): void {
    const parts = OWNERS.filter(([key]) => (plan.owners[key] ?? 0) > 0);
    const bar = h("div", { class: "lt-at-owners", role: "img", "aria-label": `${bytes(plan.total)} in all` });
    const words = h("div", { class: "lt-at-owner-words" });
    parts.forEach(([key, label]) => {
      const own = plan.owners[key]!;
      const part = h("i", { class: `lt-at-owner-${key}`, title: `${label}: ${count(own)} bytes` });
      part.style.width = `${(100 * own) / plan.total}%`;
      bar.append(part);
      words.append(
        h("span", {}, h("i", { class: `lt-at-owner-${key}` }), `${label} `, h("b", {}, bytes(own))),
      );
    });
    this.body.replaceChildren(
      h(
        "p",
        {},
        h("b", { class: "lt-big" }, bytes(plan.total)),
        ` with ${plural(plan.n_ctx, "token")} of context${gpuWords(plan)}`,
      ),
      bar,
      words,
      this.contexts(plan),
      this.command("llama-server", plan.server),
      this.command("Ollama Modelfile", plan.modelfile.trim()),
    );
  }

  private contexts(plan: Plan): HTMLElement {
    const most = Math.max(...plan.contexts.map(([, total]) => total));
    const rows = h("div", { class: "lt-at-contexts" });
    for (const [tokens, total] of plan.contexts) {
      const bar = h("i", {});
      bar.style.width = `${(100 * total) / most}%`;
      const over = plan.gpu_bytes !== null && total > plan.gpu_bytes ? " > GPU" : "";
      rows.append(
        h("span", { class: "lt-number" }, count(tokens)),
        h("span", { class: "lt-at-track" }, bar),
        h("span", {}, `${bytes(total)}${over}`),
      );
    }
    return h("div", {}, h("h4", {}, h("b", {}, "By context"), "tokens, bytes in all"), rows);
  }

  private command(name: string, text: string): HTMLElement {
    const copy = h("button", { type: "button", class: "lt-link" }, "Copy");
    copy.addEventListener("click", async () => {
      copy.textContent = (await copyText(text)) ? "Copied" : "Copying is not allowed here";
      this.cleanup.later(1200, () => {
        copy.textContent = "Copy";
      });
    });
    return h("div", {}, h("h4", {}, h("b", {}, name), copy), h("pre", { class: "lt-at-command" }, text));
  }
}

function gpuWords(plan: Plan): string {
  if (plan.gpu_layers === null || plan.gpu_bytes === null) return "";
  const all = plan.gpu_layers >= plan.layers;
  const words = all ? "all layers fit" : `${plan.gpu_layers} of ${plural(plan.layers, "layer")} fit`;
  return `; ${words} a GPU of ${bytes(plan.gpu_bytes)}`;
}
