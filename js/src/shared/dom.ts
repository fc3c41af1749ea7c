// Small things every view needs: elements, listeners that are taken away again, focus, announcements, one tooltip.
// In: a view's elements. Out: DOM. Text is only ever set as text.

type Child = Node | string | null | undefined | false;
type Props = Record<string, string | number | boolean | null | undefined>;

/** An element with attributes and children; strings become text nodes, never markup. */
export function h<K extends keyof HTMLElementTagNameMap>(
  tag: K,
  props: Props = {},
  ...children: Child[]
): HTMLElementTagNameMap[K] {
  const e = document.createElement(tag);
  setProps(e, props);
  e.append(...children.filter((c): c is Node | string => c !== null && c !== undefined && c !== false));
  return e;
}

/** The same for SVG. */
export function s<K extends keyof SVGElementTagNameMap>(
  tag: K,
  props: Props = {},
  ...children: Element[]
): SVGElementTagNameMap[K] {
  const e = document.createElementNS("http://www.w3.org/2000/svg", tag);
  setProps(e, props);
  e.append(...children);
  return e;
}

/** Sets attributes; null, undefined and false take an attribute away, true sets it empty. */
export function setProps(e: Element, props: Props): void {
  for (const [name, value] of Object.entries(props)) {
    if (value === null || value === undefined || value === false) e.removeAttribute(name);
    else e.setAttribute(name, value === true ? "" : String(value));
  }
}

/** Everything that must be undone when the view goes, in one place. */
export class Cleanup {
  private undo: (() => void)[] = [];

  add(undo: () => void): void {
    this.undo.push(undo);
  }

  on<E extends Event>(
    target: EventTarget,
    type: string,
    handler: (event: E) => void,
    options?: AddEventListenerOptions,
  ): void {
    target.addEventListener(type, handler as EventListener, options);
    this.add(() => target.removeEventListener(type, handler as EventListener, options));
  }

  /** setTimeout that cannot fire after the view has gone; returns a function that cancels it. */
  later(ms: number, run: () => void): () => void {
    const id = window.setTimeout(run, ms);
    const cancel = () => window.clearTimeout(id);
    this.add(cancel);
    return cancel;
  }

  run(): void {
    for (const undo of this.undo.splice(0).reverse()) undo();
  }
}

/** A timer that can be set again and again and is cancelled with the view. */
export class Timer {
  private id = 0;

  constructor(cleanup: Cleanup) {
    cleanup.add(() => this.stop());
  }

  start(ms: number, run: () => void): void {
    this.stop();
    this.id = window.setTimeout(() => {
      this.id = 0;
      run();
    }, ms);
  }

  get running(): boolean {
    return this.id !== 0;
  }

  stop(): void {
    window.clearTimeout(this.id);
    this.id = 0;
  }
}

/** Runs `draw` once in the next frame, however often it was asked for. */
export class Frame {
  private id = 0;

  constructor(
    cleanup: Cleanup,
    private readonly draw: (now: number) => void,
  ) {
    cleanup.add(() => cancelAnimationFrame(this.id));
  }

  ask(): void {
    if (this.id) return;
    this.id = requestAnimationFrame((now) => {
      this.id = 0;
      this.draw(now);
    });
  }
}

/** Tells screen readers what happened, at most twice a second; the last message always comes. */
export class Announcer {
  readonly element = h("div", { class: "lt-hidden", role: "status", "aria-live": "polite" });
  private readonly timer: Timer;
  private pending = "";
  private last = Number.NEGATIVE_INFINITY;

  constructor(cleanup: Cleanup) {
    this.timer = new Timer(cleanup);
  }

  say(text: string): void {
    this.pending = text;
    if (this.timer.running) return;
    const wait = Math.max(0, 500 - (performance.now() - this.last));
    this.timer.start(wait, () => {
      this.last = performance.now();
      this.element.textContent = this.pending;
    });
  }
}

/** True where the user asked the system for less motion. */
export function reducedMotion(): boolean {
  return window.matchMedia?.("(prefers-reduced-motion: reduce)").matches ?? false;
}

/** Whether two boxes overlap. */
export function overlap(a: DOMRectReadOnly, b: DOMRectReadOnly): boolean {
  return a.left < b.right && b.left < a.right && a.top < b.bottom && b.top < a.bottom;
}

/**
 * A floating box (preview, tooltip) in the browser's top layer, so no output area clips it and no layout changes.
 * It is placed beside what it explains, and never over one of the boxes it must not cover.
 */
export class Floating {
  readonly element: HTMLElement;
  private readonly topLayer: boolean;
  shown = false;

  constructor(className: string) {
    this.element = h("div", { class: `lt-float ${className}`, role: "tooltip", hidden: true });
    this.topLayer = typeof this.element.showPopover === "function";
    if (this.topLayer) this.element.setAttribute("popover", "manual");
  }

  show(target: DOMRectReadOnly, avoid: readonly DOMRectReadOnly[], gap: number): void {
    const e = this.element;
    e.hidden = false;
    if (this.topLayer && !this.shown && e.isConnected) e.showPopover();
    this.shown = true;
    const { width, height } = e.getBoundingClientRect();
    const [left, top] = place(target, width, height, avoid, gap);
    e.style.left = `${Math.round(left)}px`;
    e.style.top = `${Math.round(top)}px`;
  }

  hide(): void {
    if (!this.shown) return;
    this.shown = false;
    if (this.topLayer && this.element.isConnected) this.element.hidePopover();
    this.element.hidden = true;
  }
}

/** Where a box of this size goes: the first place around the target that is on screen and covers nothing it must not. */
export function place(
  target: DOMRectReadOnly,
  width: number,
  height: number,
  avoid: readonly DOMRectReadOnly[],
  gap: number,
): [number, number] {
  const margin = 6;
  const onScreen = (v: number, size: number, room: number) =>
    Math.max(margin, Math.min(v, room - size - margin));
  const [W, H] = [document.documentElement.clientWidth, document.documentElement.clientHeight];
  const left = target.left - width - gap;
  const right = target.right + gap;
  const under = target.bottom + gap;
  const over = target.top - height - gap;
  const centre = (target.left + target.right - width) / 2;
  const middle = (target.top + target.bottom - height) / 2;
  const places: [number, number][] = [
    [right, target.top],
    [left, target.top],
    [right, middle],
    [left, middle],
    [centre, under],
    [centre, over],
    [right, over],
    [left, over],
    [right, under],
    [left, under],
  ];
  const blocked = [target, ...avoid];
  let best: [number, number] = places[0]!;
  for (const [x, y] of places) {
    const at: [number, number] = [onScreen(x, width, W), onScreen(y, height, H)];
    const box = new DOMRect(at[0], at[1], width, height);
    if (!blocked.some((b) => overlap(box, b))) return at;
    if (!overlap(box, target)) best = at;
  }
  return best;
}

/** Copies text; false where the host forbids it. */
export async function copyText(text: string): Promise<boolean> {
  try {
    await navigator.clipboard.writeText(text);
    return true;
  } catch {
    return false;
  }
}

/** Offers a file to the user. */
export function download(name: string, blob: Blob): void {
  const url = URL.createObjectURL(blob);
  const a = h("a", { href: url, download: name, hidden: true });
  document.body.append(a);
  a.click();
  a.remove();
  window.setTimeout(() => URL.revokeObjectURL(url), 10_000);
}
