// The plate: the cloud, what lies over it, and every gesture on it. The graphics context is given back out of sight.
// In: data, styles, marks. Out: a hovered, clicked or lassoed row, by the coordinates of points, not by pixels' colours.
import { type Cleanup, Floating, Frame, h, reducedMotion, Timer } from "../shared/dom";
import type { Theme } from "../shared/theme";
import { between, Camera, type Pose } from "./camera";
import { type Cloud, FlatCloud, GlCloud } from "./cloud";
import { palette, type Style, seenLinks } from "./colours";
import { type SpaceData, UNPLACED } from "./data";
import type { Box } from "./labels";
import { covered, type How, nearest, towards } from "./lasso";
import { type Marks, Overlay } from "./overlay";

export interface PlateEvents {
  lock(row: number | null): void;
  lasso(rows: number[], how: How): void;
  isolate(row: number): void;
  hover(row: number | null): void;
  /** What a tooltip says of a row. */
  words(row: number): (Node | string)[];
  say(row: number): string;
}

export type Mode = "orbit" | "lasso";

const REACH = 12;
const FLIGHT = 420;
const MORPH = 800;
/** Attempts to get a lost context back before the plate is drawn without. */
const TRIES = 3;
const DRAG = 4;

export class Plate {
  readonly camera = new Camera();
  readonly overlay = new Overlay();
  readonly tip = new Floating("lt-tip lt-emb-tip");
  readonly element: HTMLElement;
  readonly advice = h("div", { class: "lt-emb-advice" });
  readonly notice = h("div", { class: "lt-emb-flat", role: "note", hidden: true });
  private readonly holder = h("div", { class: "lt-emb-cloud" });
  private readonly still = document.createElement("canvas");
  private readonly twin: HTMLElement;
  private readonly frame: Frame;
  private readonly tipDelay: Timer;
  private readonly retry: Timer;
  private cloud: Cloud | null = null;
  private data: SpaceData | null = null;
  private style: Style | null = null;
  private theme: Theme | null = null;
  private marks: Omit<Marks, "lasso" | "hovered"> | null = null;
  private ratio = 1;
  private shown = false;
  private lost = 0;
  private lasso: [number, number][] | null = null;
  private hovered: number | null = null;
  private cursor: number | null = null;
  private active = false;
  private flight: { from: Pose; to: Pose; start: number } | null = null;
  private blending: number | null = null;
  private drag: { x: number; y: number; moved: boolean; how: How | null; pan: boolean } | null = null;
  private pointer: [number, number] | null = null;
  private picks: Frame;
  private xy = new Float32Array(0);
  private depths = new Float32Array(0);
  private projected = "";
  private framed = false;
  mode: Mode = "orbit";
  /** When there was something to draw, milliseconds from then to the first frame, and of the last one. */
  readonly times = { there: 0, first: 0, last: 0, frames: 0 };

  constructor(
    private readonly cleanup: Cleanup,
    unique: string,
    private readonly events: PlateEvents,
  ) {
    this.twin = h("div", {
      class: "lt-hidden lt-twin",
      role: "application",
      "aria-roledescription": "cloud of points",
      tabindex: 0,
      "data-region": "space",
      "aria-describedby": `lt-emb-${unique}`,
    });
    this.overlay.canvas.className = "lt-emb-over";
    this.still.className = "lt-emb-still";
    this.element = h(
      "div",
      { class: "lt-emb-plate" },
      this.still,
      this.holder,
      this.overlay.canvas,
      this.advice,
      this.notice,
      this.twin,
      h(
        "span",
        { class: "lt-hidden", id: `lt-emb-${unique}` },
        "Arrows step from point to point, Enter locks one, Shift and arrows turn, plus and minus zoom, R resets.",
      ),
    );
    this.frame = new Frame(cleanup, (now) => this.paint(now));
    this.picks = new Frame(cleanup, () => this.pick());
    this.tipDelay = new Timer(cleanup);
    this.retry = new Timer(cleanup);
    cleanup.add(() => this.release());
    this.listen();
    if (typeof IntersectionObserver === "undefined") this.shown = true;
    else {
      const seen = new IntersectionObserver(
        (entries) => {
          this.shown = entries[entries.length - 1]?.isIntersecting ?? true;
          if (this.shown) this.frame.ask();
          else this.release();
        },
        { rootMargin: "200px" },
      );
      seen.observe(this.element);
      cleanup.add(() => seen.disconnect());
    }
  }

  /** The element that takes the focus. */
  get focusable(): HTMLElement {
    return this.twin;
  }

  get flat(): boolean {
    return this.cloud?.flat ?? false;
  }

  set label(text: string) {
    this.twin.setAttribute("aria-label", text);
  }

  // ------------------------------------------------------------------------- what is shown

  show(data: SpaceData, style: Style, marks: Omit<Marks, "lasso" | "hovered">, theme: Theme): void {
    const [before, styled, themed] = [this.data, this.style, this.theme];
    this.data = data;
    this.style = style;
    this.theme = theme;
    this.marks = marks;
    this.times.there ||= performance.now();
    const points = !before?.samePoints(data);
    if (points) {
      this.xy = new Float32Array(2 * data.n);
      this.depths = new Float32Array(data.n);
      this.projected = "";
      this.framed = false;
    }
    if (this.cloud) {
      if (points) this.cloud.setPoints(data.positions, data.moved);
      if (styled !== style || !before?.sameLinks(data)) this.cloud.setLinks(seenLinks(data.links, style));
      if (points || styled !== style) this.cloud.setStyle(style);
      if (themed !== theme) this.cloud.setPalette(palette(theme));
      if (points) this.cloud.resize(this.camera.width, this.camera.height, this.ratio);
    }
    this.frame.ask();
  }

  resize(width: number, height: number, ratio: number): void {
    if (width === this.camera.width && height === this.camera.height && ratio === this.ratio) return;
    this.camera.width = width;
    this.camera.height = height;
    this.ratio = ratio;
    this.element.style.width = `${width}px`;
    this.element.style.height = `${height}px`;
    for (const c of [this.overlay.canvas, this.still, this.cloud?.canvas]) this.sized(c);
    this.projected = "";
    this.cloud?.resize(width, height, ratio);
    this.framed = this.framed && !this.camera.atStart;
    this.fit();
    this.frame.ask();
  }

  private sized(canvas: HTMLCanvasElement | undefined): void {
    if (!canvas) return;
    canvas.style.width = `${this.camera.width}px`;
    canvas.style.height = `${this.camera.height}px`;
  }

  reset(): void {
    this.flyTo(this.camera.start);
  }

  /** Flies to a row, as near as its surroundings are worth seeing. */
  go(row: number): void {
    if (!this.data?.placed(row)) return;
    const { start, pose } = this.camera;
    this.flyTo({
      ...pose,
      target: this.data.point(row),
      distance: Math.min(pose.distance, start.distance / 2.5),
    });
  }

  /** Every point goes to where the other model has it, or back. */
  morph(): void {
    this.blending = reducedMotion() ? Number.NEGATIVE_INFINITY : performance.now();
    this.frame.ask();
  }

  private flyTo(to: Pose): void {
    if (reducedMotion()) {
      this.camera.set(to);
      this.flight = null;
    } else this.flight = { from: this.camera.pose, to, start: performance.now() };
    this.frame.ask();
  }

  private fit(): void {
    if (this.framed || !this.data || this.camera.width < 2) return;
    this.camera.frame(this.data.positions, UNPLACED);
    this.framed = true;
  }

  // ------------------------------------------------------------------- the context's life

  private make(): void {
    const { data, style, theme } = this;
    if (this.cloud || !data || !style || !theme) return;
    const canvas = () => h("canvas", { class: "lt-emb-points", "aria-hidden": "true" });
    if (this.lost < TRIES)
      try {
        const cloud: GlCloud = new GlCloud(canvas(), () => this.lose(cloud));
        this.cloud = cloud;
      } catch {
        this.lost = TRIES;
      }
    this.cloud ??= new FlatCloud(canvas());
    const { cloud } = this;
    this.notice.hidden = !cloud.flat;
    this.notice.textContent = "No WebGL here: drawn as a flat 2D canvas, slower";
    this.element.classList.toggle("lt-emb-nogl", cloud.flat);
    cloud.setPoints(data.positions, data.moved);
    cloud.setLinks(seenLinks(data.links, style));
    cloud.setBlend(data.second ? 1 : 0);
    cloud.setStyle(style);
    cloud.setPalette(palette(theme));
    cloud.resize(this.camera.width, this.camera.height, this.ratio);
    this.sized(cloud.canvas);
    this.holder.replaceChildren(cloud.canvas);
  }

  /** The browser took the context away: get another, some time later. */
  private lose(cloud: Cloud): void {
    if (this.cloud !== cloud) return;
    this.lost++;
    this.holder.replaceChildren();
    this.cloud = null;
    cloud.destroy();
    this.retry.start(250 * this.lost, () => this.frame.ask());
  }

  /** Gives the context back and leaves the last picture standing. */
  private release(): void {
    const { cloud } = this;
    if (!cloud) return;
    this.keepStill();
    this.cloud = null;
    this.holder.replaceChildren();
    cloud.destroy();
    this.hideTip();
  }

  private keepStill(): void {
    const { cloud } = this;
    if (!cloud || this.camera.width < 2) return;
    cloud.draw(this.camera); // a context keeps its pixels only until the page is composed
    const { canvas } = cloud;
    this.still.width = canvas.width;
    this.still.height = canvas.height;
    this.still.getContext("2d")?.drawImage(canvas, 0, 0);
  }

  /** The plate as it looks now, for a picture. */
  picture(): HTMLCanvasElement {
    this.make();
    this.keepStill();
    const out = document.createElement("canvas");
    out.width = this.still.width;
    out.height = this.still.height;
    const ctx = out.getContext("2d");
    if (ctx && this.theme) {
      ctx.fillStyle = `rgb(${this.theme.plate.map(Math.round).join(",")})`;
      ctx.fillRect(0, 0, out.width, out.height);
      ctx.drawImage(this.still, 0, 0);
      ctx.drawImage(this.overlay.canvas, 0, 0, out.width, out.height);
    }
    out.style.width = `${this.camera.width}px`;
    out.style.height = `${this.camera.height}px`;
    return out;
  }

  private paint(now: number): void {
    const { data, theme, marks, camera } = this;
    if (!data || !theme || !marks || camera.width < 2 || !this.shown) return;
    const start = performance.now();
    this.fit();
    this.make();
    if (this.flight) {
      const t = Math.min(1, (now - this.flight.start) / FLIGHT);
      camera.set(between(this.flight.from, this.flight.to, Math.max(0, 1 - (1 - t) ** 3)));
      if (t >= 1) this.flight = null;
      else this.frame.ask();
    }
    if (this.blending !== null) {
      const t = Math.max(0, Math.min(1, (now - this.blending) / MORPH));
      this.cloud?.setBlend(data.second ? t : 1 - t);
      if (t >= 1) this.blending = null;
      else this.frame.ask();
    }
    this.cloud?.draw(camera);
    const moving = { ...marks, lasso: this.lasso, hovered: this.hovered };
    this.overlay.draw(camera, data, moving, theme, this.ratio, this.reserved());
    this.times.last = performance.now() - start;
    this.times.first ||= performance.now() - this.times.there;
    this.times.frames++;
    this.report(marks.locked);
  }

  /** For whoever looks from outside: how many times it was drawn, how long that took, where the locked point is. */
  private report(locked: number | null): void {
    const { dataset } = this.element;
    dataset.frames = String(this.times.frames);
    dataset.first = this.times.first.toFixed(1);
    dataset.milliseconds = this.times.last.toFixed(1);
    if (locked === null || !this.data?.placed(locked)) delete dataset.locked;
    else dataset.locked = this.camera.project(this.data.point(locked)).slice(0, 2).map(Math.round).join(",");
  }

  /** Where no label may stand: the advice, the axes. */
  private reserved(): Box[] {
    const { width, height } = this.camera;
    const wide = this.advice.offsetWidth || 0;
    return [
      { left: width - wide - 12, top: height - 32, right: width, bottom: height },
      { left: 0, top: height - 60, right: 62, bottom: height },
    ];
  }

  // ------------------------------------------------------------------------------ picking

  /** Whether a row can be hit. */
  private readonly visible = (row: number): boolean =>
    this.style !== null && this.style.bytes[4 * row + 2] !== 0;

  private project(): void {
    const { data, camera } = this;
    if (!data) return;
    const now = JSON.stringify([camera.pose, camera.width, camera.height, data.second]);
    if (now === this.projected) return;
    camera.projectAll(data.shown, UNPLACED, this.xy, this.depths);
    this.projected = now;
  }

  private at(x: number, y: number): number | null {
    this.project();
    const row = nearest(this.xy, this.depths, x, y, REACH, this.visible);
    return row < 0 ? null : row;
  }

  private pick(): void {
    if (!this.pointer || this.drag) return;
    this.setHover(this.at(...this.pointer), true);
  }

  private setHover(row: number | null, tip: boolean): void {
    if (row !== this.hovered) {
      this.hovered = row;
      this.events.hover(row);
      this.frame.ask();
      this.hideTip();
    }
    this.overlay.canvas.style.cursor = row === null ? "" : "pointer";
    if (row !== null && tip && !this.tip.shown) this.tipDelay.start(80, () => this.showTip());
  }

  /** A row that a list points at. */
  look(row: number | null): void {
    if (row === this.hovered) return;
    this.hovered = row;
    this.frame.ask();
  }

  showTip(): void {
    const { hovered } = this;
    if (hovered === null || !this.data) return;
    const [x, y] = this.camera.project(this.data.point(hovered));
    const box = this.element.getBoundingClientRect();
    this.tip.element.replaceChildren(...this.events.words(hovered));
    this.tip.show(new DOMRect(box.left + x - 8, box.top + y - 8, 16, 16), [], 8);
  }

  hideTip(): boolean {
    this.tipDelay.stop();
    const was = this.tip.shown;
    this.tip.hide();
    return was;
  }

  // ----------------------------------------------------------------------------- gestures

  private listen(): void {
    const { cleanup } = this;
    const target = this.overlay.canvas;
    const place = (e: MouseEvent): [number, number] => {
      const box = target.getBoundingClientRect();
      return [e.clientX - box.left, e.clientY - box.top];
    };
    cleanup.on<PointerEvent>(target, "pointerdown", (e) => this.down(e, place(e)));
    cleanup.on<PointerEvent>(target, "pointermove", (e) => this.move(e, place(e)));
    cleanup.on<PointerEvent>(target, "pointerup", (e) => this.up(e, place(e)));
    cleanup.on(target, "pointercancel", () => this.drop());
    cleanup.on(target, "pointerleave", () => {
      this.pointer = null;
      if (!this.drag) this.setHover(null, false);
    });
    // After the press, which hosts answer by moving the focus to their cell.
    cleanup.on(target, "click", () => this.twin.focus({ preventScroll: true }));
    cleanup.on<MouseEvent>(target, "contextmenu", (e) => e.preventDefault());
    cleanup.on<MouseEvent>(target, "dblclick", (e) => {
      const row = this.at(...place(e));
      if (row !== null) this.events.isolate(row);
    });
    cleanup.on<WheelEvent>(
      target,
      "wheel",
      (e) => {
        if (!this.active && !e.ctrlKey && !e.metaKey) return;
        e.preventDefault();
        const step = e.deltaMode === 1 ? 24 * e.deltaY : e.deltaY;
        this.zoom(Math.exp(-Math.max(-120, Math.min(120, step)) * 0.0035), place(e));
      },
      { passive: false },
    );
    cleanup.on(this.twin, "focus", () => {
      this.active = true;
      this.element.classList.add("lt-focus");
    });
    cleanup.on(this.twin, "blur", () => {
      this.active = false;
      this.element.classList.remove("lt-focus");
      this.cursor = null;
    });
  }

  private zoom(factor: number, [x, y]: [number, number]): void {
    this.flight = null;
    this.camera.zoomAt(factor, x, y);
    this.hideTip();
    this.frame.ask();
  }

  private down(e: PointerEvent, at: [number, number]): void {
    if (e.button > 2) return;
    this.overlay.canvas.setPointerCapture?.(e.pointerId);
    this.hideTip();
    this.flight = null;
    const lasso = this.mode === "lasso" || e.shiftKey;
    let how: How | null = null;
    if (lasso && e.button === 0) {
      how = "replace";
      if (this.mode === "lasso" ? e.shiftKey : e.ctrlKey || e.metaKey) how = "add";
      if (e.altKey) how = "remove";
    }
    this.drag = { x: at[0], y: at[1], moved: false, how, pan: e.button !== 0 };
    if (how) this.lasso = [at];
  }

  private move(e: PointerEvent, at: [number, number]): void {
    this.pointer = at;
    const { drag } = this;
    if (!drag) {
      if (e.pointerType !== "touch") this.picks.ask();
      return;
    }
    const [dx, dy] = [at[0] - drag.x, at[1] - drag.y];
    if (!drag.moved && Math.hypot(dx, dy) < DRAG) return;
    drag.moved = true;
    if (this.lasso) this.lasso.push(at);
    else {
      if (drag.pan) this.camera.pan(dx, dy);
      else this.camera.orbit(-dx, dy);
      [drag.x, drag.y] = at;
    }
    this.setHover(null, false);
    this.frame.ask();
  }

  private up(e: PointerEvent, at: [number, number]): void {
    const { drag, lasso } = this;
    this.drop();
    if (!drag) return;
    if (drag.moved && lasso && drag.how) {
      this.project();
      this.events.lasso(covered(lasso, this.xy, this.visible), drag.how);
    } else if (!drag.moved && e.button === 0) this.events.lock(this.at(...at));
    this.frame.ask();
  }

  private drop(): void {
    this.drag = null;
    this.lasso = null;
  }

  // ----------------------------------------------------------------------------- keyboard

  key(event: KeyboardEvent): boolean {
    const { data, camera } = this;
    if (!data || event.ctrlKey || event.metaKey || event.altKey) return false;
    const middle: [number, number] = [camera.width / 2, camera.height / 2];
    const arrows: Record<string, [number, number]> = {
      ArrowLeft: [-1, 0],
      ArrowRight: [1, 0],
      ArrowUp: [0, -1],
      ArrowDown: [0, 1],
    };
    const arrow = arrows[event.key];
    if (arrow && event.shiftKey) {
      this.flight = null;
      camera.orbit(-arrow[0] * 18, arrow[1] * 18);
      this.frame.ask();
      return true;
    }
    if (arrow) return this.step(arrow, middle);
    if (event.key === "+" || event.key === "=") this.zoom(1.25, middle);
    else if (event.key === "-") this.zoom(0.8, middle);
    else if (event.key === "r" || event.key === "R") this.reset();
    else if (event.key === "Enter" && this.cursor !== null) {
      if (event.shiftKey) this.events.isolate(this.cursor);
      else this.events.lock(this.cursor);
    } else return false;
    return true;
  }

  private step(direction: [number, number], middle: [number, number]): boolean {
    this.project();
    const from = this.cursor ?? this.marks?.locked ?? null;
    const start: [number, number] =
      from === null ? middle : [this.xy[2 * from] ?? middle[0], this.xy[2 * from + 1] ?? middle[1]];
    const room: [number, number] = [this.camera.width, this.camera.height];
    const row = towards(this.xy, start, direction, room, this.visible);
    if (row < 0) return true;
    this.cursor = row;
    this.setHover(row, false);
    this.showTip();
    this.twin.setAttribute("aria-valuetext", this.events.say(row));
    return true;
  }
}
