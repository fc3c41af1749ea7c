// Which word's logit is taken apart, and against which other.
// In: data, the token after which. Out: what the user chose.
import { type Cleanup, h } from "../shared/dom";
import type { LensData } from "./data";

interface Patch {
  word?: number | null;
  against?: number | null;
}

export class PushBar {
  private readonly word = h("select", { class: "lt-select lt-ll-select", "aria-label": "Push on" });
  private readonly against = h("select", { class: "lt-select lt-ll-select", "aria-label": "Against" });
  readonly element = h(
    "span",
    { class: "lt-ll-choose lt-quiet" },
    h("label", {}, "Push on ", this.word),
    h("label", {}, "against ", this.against),
  );
  private key = "";

  constructor(cleanup: Cleanup, choose: (patch: Patch) => void) {
    const value = (select: HTMLSelectElement) => (select.value === "" ? null : Number(select.value));
    cleanup.on(this.word, "change", () => choose({ word: value(this.word) }));
    cleanup.on(this.against, "change", () => choose({ against: value(this.against) }));
  }

  show(data: LensData, position: number, row: number, word: number | null, against: number | null): void {
    const words = data.candidates(position, row);
    for (const own of [word, against]) if (own !== null && !words.includes(own)) words.push(own);
    const answer = data.answer(position);
    const key = JSON.stringify([words, words.map((id) => data.word(id)), word, against, answer]);
    if (key === this.key) return;
    this.key = key;
    const options = (none: string, chosen: number | null, without: number | null) => [
      h("option", { value: "", selected: chosen === null }, none),
      ...words
        .filter((id) => id !== without)
        .map((id) => h("option", { value: id, selected: id === chosen }, data.word(id))),
    ];
    const own = answer === null ? "the answer" : `${data.word(answer)} (the answer)`;
    this.word.replaceChildren(...options(own, word === answer ? null : word, answer));
    this.against.replaceChildren(...options("nothing", against, word ?? answer));
  }
}
