// The recommendation: a sentence, how sure it is and what it cannot say; why; and what to do with it.
// In: the choice at the budget. Out: a plate of text, commands to copy.
import { Segmented } from "../attention_grid/controls";
import { type Cleanup, copyText, h } from "../shared/dom";
import type { Choice } from "./data";

const CARD = "Model card";
const USES = ["llama-server", "llama-quantize", "Modelfile", CARD] as const;
type Use = (typeof USES)[number];

export class Answer {
  readonly element = h("section", { class: "lt-qr-answer", "aria-label": "Recommendation" });
  private readonly headline = h("h3", { class: "lt-qr-headline" });
  private readonly body = h("p", {});
  private readonly sure = h("p", {});
  private readonly limits = h("div", {});
  private readonly reasons = h("ul", {});
  private readonly command = h("pre", { tabindex: 0, "aria-label": "Command" });
  private readonly use: Segmented<Use>;
  private readonly why: HTMLElement;
  private readonly how: HTMLElement;
  private used: Use = "llama-server";
  private choice: Choice | null = null;

  constructor(
    cleanup: Cleanup,
    private readonly told: (words: string) => void,
  ) {
    this.use = new Segmented<Use>(
      "What to copy",
      USES.map((name) => [name, name, name === CARD ? "A block of Markdown" : `For ${name}`] as const),
      cleanup,
      (use) => {
        this.used = use;
        this.showCommand();
      },
    );
    const copy = h("button", { type: "button", class: "lt-button" }, "Copy");
    cleanup.on(copy, "click", async () => {
      const done = await copyText(this.command.textContent ?? "");
      copy.textContent = done ? "Copied" : "Not allowed here";
      this.told(copy.textContent);
      cleanup.later(1200, () => {
        copy.textContent = "Copy";
      });
    });
    this.why = h("details", {}, h("summary", {}, "Why"), this.reasons);
    this.how = h(
      "details",
      {},
      h("summary", {}, "Use it"),
      h("div", { class: "lt-qr-bar lt-small" }, this.use.element, copy),
      this.command,
    );
    this.element.append(
      h("div", {}, this.headline, this.body),
      h("div", { class: "lt-qr-beside" }, this.sure, this.limits),
      h("div", { class: "lt-qr-more" }, this.why, this.how),
    );
  }

  show(choice: Choice | null): void {
    if (choice === this.choice && choice !== null) return;
    this.choice = choice;
    this.headline.textContent = choice ? choice.headline : "Nothing has been measured yet.";
    this.body.textContent = choice ? choice.body : "The first candidate that is measured appears here.";
    this.sure.hidden = choice === null;
    this.sure.replaceChildren(h("b", {}, "How sure: "), choice?.sure ?? "");
    this.limits.replaceChildren(
      ...(choice?.limits ?? []).map((limit) =>
        h("p", { class: "lt-qr-limit" }, h("b", {}, "Limit: "), limit),
      ),
    );
    this.reasons.replaceChildren(...(choice?.reasons ?? []).map((line) => h("li", {}, line)));
    this.why.hidden = !choice || choice.reasons.length === 0;
    this.how.hidden = !choice?.name;
    for (const name of USES) this.use.offer(name, this.words(name) !== "");
    if (this.words(this.used) === "") this.used = "llama-server";
    this.showCommand();
  }

  private words(use: Use): string {
    const { choice } = this;
    return (use === CARD ? choice?.markdown : choice?.commands[use]) ?? "";
  }

  private showCommand(): void {
    this.use.show(this.used);
    this.command.textContent = this.words(this.used);
  }
}
