// The text, coloured by what each token's prediction lost, and the tokens that changed most.
// In: a strip of one candidate. Out: DOM; nothing but what is looked at, so no state leaves it.
import { contrast, css, type Rgb } from "../shared/colour";
import { type Cleanup, h, setProps } from "../shared/dom";
import { count, plural, probability, shorten } from "../shared/format";
import type { Theme } from "../shared/theme";
import type { Strip, TokenRow } from "./data";
import { figure, tokenWords } from "./words";

/** The scale: from this KL on there is colour, at that one it ends. */
const LEAST = 0.001;
const MOST = 1;
/** Of the scale: as far as text on it stays readable. */
const READABLE = 0.6;

export function shade(theme: Theme, kl: number): Rgb {
  const share = kl <= LEAST ? 0 : Math.min(1, Math.log(kl / LEAST) / Math.log(MOST / LEAST));
  return theme.sequential[Math.round(share * READABLE * 255)]!;
}

export class TokensView {
  readonly element = h("section", { class: "lt-qr-tokens" });
  private readonly heading = h("span", {});
  private readonly line = h("div", { class: "lt-qr-line", role: "listbox", tabindex: 0 });
  private readonly said = h("div", { class: "lt-qr-said", role: "status" });
  private readonly worst = h("div", { class: "lt-qr-worst", role: "group" });
  private readonly ramp = h("div", { class: "lt-ramp" });
  private strip: Strip | null = null;
  private drawn = "";
  private cursor = 0;

  constructor(
    private readonly unique: string,
    cleanup: Cleanup,
  ) {
    const ticks = ["\u2264 0.001", "0.01", "0.1", "\u2265 1"].map((label, i) => {
      const mark = h("span", { class: i === 0 ? "lt-begin" : i === 3 ? "lt-end" : "" }, label);
      mark.style.left = `${(i / 3) * 100}%`;
      return mark;
    });
    this.element.append(
      h("h3", {}, h("b", {}, "Where it hurts in the text"), this.heading),
      h(
        "div",
        { class: "lt-qr-columns" },
        h(
          "div",
          {},
          this.line,
          h(
            "div",
            { class: "lt-legend" },
            h("div", { class: "lt-scale" }, this.ramp, h("div", { class: "lt-ticks" }, ...ticks)),
            h(
              "div",
              { class: "lt-quiet" },
              "KL of the prediction, nats; underlined = another token became likeliest",
            ),
          ),
          this.said,
        ),
        this.worst,
      ),
    );
    cleanup.on<MouseEvent>(this.line, "click", (e) => {
      const at = Number((e.target as HTMLElement).closest<HTMLElement>("[data-at]")?.dataset.at ?? "");
      if ((e.target as HTMLElement).closest("[data-at]")) this.point(at);
    });
    cleanup.on<MouseEvent>(this.line, "pointerover", (e) => {
      const own = (e.target as HTMLElement).closest<HTMLElement>("[data-at]");
      if (own) this.say(Number(own.dataset.at));
    });
    cleanup.on(this.line, "pointerleave", () => this.say(this.cursor));
  }

  show(strip: Strip | null, name: string | null, why: string, theme: Theme): void {
    this.strip = strip;
    this.element.hidden = name === null;
    const key = JSON.stringify([
      strip?.candidate,
      strip?.text,
      strip?.tokens.length,
      why,
      name,
      css(theme.paper),
    ]);
    if (key === this.drawn) return;
    this.drawn = key;
    this.cursor = 0;
    if (!strip) {
      this.heading.textContent = `${name ?? ""} \u00b7 ${why}`;
      this.line.replaceChildren();
      this.worst.replaceChildren();
      this.said.textContent = "";
      setProps(this.element, { class: "lt-qr-tokens lt-qr-none" });
      return;
    }
    setProps(this.element, { class: "lt-qr-tokens" });
    const last = strip.first + strip.tokens.length;
    const part =
      strip.tokens.length < strip.count
        ? `tokens ${count(strip.first)} to ${count(last - 1)} of ${count(strip.count)}`
        : plural(strip.count, "scored token");
    this.heading.textContent = `${strip.candidate} \u00b7 ${strip.text} \u00b7 ${part}`;
    this.ramp.style.background = `linear-gradient(to right, ${Array.from({ length: 9 }, (_, i) =>
      css(shade(theme, LEAST * (MOST / LEAST) ** (i / 8))),
    ).join(",")})`;
    this.line.replaceChildren(
      ...strip.tokens.flatMap((row, i) => {
        const own = this.token(row, i, theme);
        return row[1].endsWith("\u23ce") ? [own, h("br")] : [own];
      }),
    );
    setProps(this.line, { "aria-label": `${this.heading.textContent}. Arrows step from token to token` });
    this.worst.replaceChildren(
      h("h4", {}, h("b", {}, "Changed most"), h("span", { class: "lt-quiet" }, " base \u2192 here, KL")),
      ...strip.worst.map((row) => this.changed(row)),
    );
    const [, , , , , , place] = strip.worst[0] ?? [];
    this.point(place === undefined ? 0 : place - strip.first, false);
  }

  /** Takes a key; true when it used it. */
  key(event: KeyboardEvent, target: HTMLElement): boolean {
    if (target !== this.line || !this.strip) return false;
    const last = this.strip.tokens.length - 1;
    const steps: Record<string, number> = {
      ArrowLeft: this.cursor - 1,
      ArrowRight: this.cursor + 1,
      ArrowUp: this.cursor - 10,
      ArrowDown: this.cursor + 10,
      Home: 0,
      End: last,
    };
    const to = steps[event.key];
    if (to === undefined) return false;
    this.point(Math.max(0, Math.min(last, to)));
    return true;
  }

  private token(row: TokenRow, at: number, theme: Theme): HTMLElement {
    const colour = shade(theme, row[4]);
    const e = h(
      "span",
      {
        class: row[5] ? "lt-qr-token" : "lt-qr-token lt-qr-moved",
        role: "option",
        id: `lt-${this.unique}-${at}`,
        "data-at": at,
      },
      h("bdi", {}, row[1]),
    );
    e.style.background = css(colour);
    e.style.color = css(contrast(theme.ink, colour) >= 4.5 ? theme.ink : theme.paper);
    return e;
  }

  private changed(row: Strip["worst"][number]): HTMLElement {
    const [, token, before, after, kl, , place, text] = row;
    const { strip } = this;
    const at = place - (strip?.first ?? 0);
    const here = text === strip?.text && at >= 0 && at < (strip?.tokens.length ?? 0);
    const button = h(
      "button",
      { type: "button", class: "lt-qr-change", disabled: !here, title: here ? "Show it in the text" : text },
      h("bdi", { class: "lt-mono" }, shorten(token, 16)),
      h("span", {}, `${probability(before)} \u2192 ${probability(after)}`),
      h("b", {}, figure(kl)),
    );
    button.addEventListener("click", () => this.point(at));
    return button;
  }

  private point(at: number, scroll = true): void {
    const tokens = [...this.line.querySelectorAll<HTMLElement>("[data-at]")];
    this.cursor = Math.max(0, Math.min(tokens.length - 1, at));
    for (const [i, e] of tokens.entries()) setProps(e, { "aria-selected": String(i === this.cursor) });
    const own = tokens[this.cursor];
    setProps(this.line, { "aria-activedescendant": own?.id });
    if (own) {
      const top = own.offsetTop - this.line.clientHeight / 2;
      if (scroll || top > 0) this.line.scrollTop = top;
    }
    this.say(this.cursor);
  }

  private say(at: number): void {
    const row = this.strip?.tokens[at];
    this.said.textContent = row ? tokenWords(row) : "";
  }
}
