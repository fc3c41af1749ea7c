// What lies over the cloud: labels with a halo, rings, links to neighbours, the lasso's outline, the three axes.
// In: the camera, what is locked, hovered and near. Out: one 2D canvas. Text never turns with the camera.
import { css, type Rgb } from "../shared/colour";
import { shorten } from "../shared/format";
import type { Theme } from "../shared/theme";
import type { Camera, Point } from "./camera";
import { hue } from "./colours";
import type { Group, SpaceData } from "./data";
import { type Box, type Label, type Placed, placeLabels } from "./labels";

export interface Marks {
  readonly locked: number | null;
  readonly hovered: number | null;
  readonly near: readonly number[];
  /** Rows with a ring and a label, without links. */
  readonly ringed: readonly number[];
  readonly lasso: readonly (readonly [number, number])[] | null;
  /** Only this group's label is shown. */
  readonly isolated: number | null;
  readonly hues: boolean;
}

interface Named extends Label {
  readonly font: string;
  readonly colour: Rgb;
}

/** How much nearer than at the start one must be for the names of the next level. */
const NEARER = [1.5, 2.5, 4];
const NAME = 30;
const GIZMO = 20;
/** Paths that are drawn at once. */
const PATHS = 200;

export class Overlay {
  readonly canvas = document.createElement("canvas");
  /** What stands there now, for tests and pictures. */
  placed: readonly Placed<Named>[] = [];

  draw(
    camera: Camera,
    data: SpaceData,
    marks: Marks,
    theme: Theme,
    ratio: number,
    reserved: readonly Box[],
  ): void {
    const { width, height } = camera;
    const { canvas } = this;
    const [w, h] = [Math.round(width * ratio), Math.round(height * ratio)];
    if (canvas.width !== w || canvas.height !== h) [canvas.width, canvas.height] = [w, h];
    const ctx = canvas.getContext("2d");
    if (!ctx) return;
    ctx.setTransform(ratio, 0, 0, ratio, 0, 0);
    ctx.clearRect(0, 0, width, height);
    this.paths(ctx, camera, data, marks, theme);
    this.links(ctx, camera, data, marks, theme);
    const taken = [...reserved, ...this.rings(ctx, camera, data, marks, theme)];
    this.names(ctx, camera, data, marks, theme, taken);
    if (marks.lasso) outline(ctx, marks.lasso, theme);
    this.gizmo(ctx, camera, theme);
  }

  /** Of a residual stream: each token's way through the layers, the locked one's in the accent. */
  private paths(
    ctx: CanvasRenderingContext2D,
    camera: Camera,
    data: SpaceData,
    marks: Marks,
    theme: Theme,
  ): void {
    const { path } = data.facts;
    if (!path) return;
    const line = (token: number, colour: Rgb, alpha: number, thick: number) => {
      ctx.strokeStyle = css(colour);
      ctx.globalAlpha = alpha;
      ctx.lineWidth = thick;
      ctx.beginPath();
      let down = false;
      for (const row of data.pathOf(token)) {
        const [x, y, depth] = data.placed(row) ? camera.project(data.point(row)) : [0, 0, 0];
        if (depth > 0 && down) ctx.lineTo(x, y);
        else if (depth > 0) ctx.moveTo(x, y);
        down = depth > 0;
      }
      ctx.stroke();
    };
    const chosen = marks.locked === null ? -1 : marks.locked % path.tokens;
    const shown = Math.min(path.tokens, PATHS);
    for (let token = 0; token < shown; token++) if (token !== chosen) line(token, theme.ink3, 0.25, 1);
    if (chosen >= 0) line(chosen, theme.accent, 0.9, 2);
    ctx.globalAlpha = 1;
  }

  private links(
    ctx: CanvasRenderingContext2D,
    camera: Camera,
    data: SpaceData,
    marks: Marks,
    theme: Theme,
  ): void {
    const { locked, near } = marks;
    if (locked === null || data.facts.path || !data.placed(locked)) return;
    const from = camera.project(data.point(locked));
    ctx.strokeStyle = css(theme.accent);
    ctx.lineWidth = 1;
    ctx.globalAlpha = 0.55;
    ctx.beginPath();
    for (const row of near) {
      if (!data.placed(row)) continue;
      const to = camera.project(data.point(row));
      if (from[2] <= 0 || to[2] <= 0) continue;
      ctx.moveTo(from[0], from[1]);
      ctx.lineTo(to[0], to[1]);
    }
    ctx.stroke();
    ctx.globalAlpha = 1;
  }

  /** Dots and rings; returns what they cover. */
  private rings(
    ctx: CanvasRenderingContext2D,
    camera: Camera,
    data: SpaceData,
    marks: Marks,
    theme: Theme,
  ): Box[] {
    const taken: Box[] = [];
    const at = (row: number) => (data.placed(row) ? camera.project(data.point(row)) : null);
    const circle = (row: number, radius: number, fill: Rgb | null, line: Rgb | null, thick = 2) => {
      const p = at(row);
      if (!p || p[2] <= 0) return;
      ctx.beginPath();
      ctx.arc(p[0], p[1], radius, 0, 2 * Math.PI);
      if (fill) {
        ctx.fillStyle = css(fill);
        ctx.fill();
      }
      if (line) {
        ctx.strokeStyle = css(line);
        ctx.lineWidth = thick;
        ctx.stroke();
      }
      taken.push({ left: p[0] - radius, right: p[0] + radius, top: p[1] - radius, bottom: p[1] + radius });
    };
    for (const row of marks.near) circle(row, 3.5, theme.accent, null);
    for (const row of marks.ringed) circle(row, 5, null, theme.accent, 1.5);
    if (marks.locked !== null) {
      circle(marks.locked, 8, theme.plate, theme.accent, 2.5);
      circle(marks.locked, 4.5, theme.accent, null);
    }
    if (marks.hovered !== null && marks.hovered !== marks.locked)
      circle(marks.hovered, 6, null, theme.ink, 1.5);
    return taken;
  }

  private names(
    ctx: CanvasRenderingContext2D,
    camera: Camera,
    data: SpaceData,
    marks: Marks,
    theme: Theme,
    taken: readonly Box[],
  ): void {
    const labels: Named[] = [];
    const put = (text: string, at: Point, font: string, size: number, colour: Rgb, gap: number) => {
      const [x, y, depth] = camera.project(at);
      if (depth <= 0 || text === "") return;
      ctx.font = font;
      labels.push({ text, x, y, width: ctx.measureText(text).width, height: size + 3, gap, font, colour });
    };
    const mono = (row: number, size: number, bold: boolean, gap: number) => {
      const text = data.text(row);
      if (text === null || !data.placed(row)) return;
      const font = `${bold ? 600 : 400} ${size}px ${theme.mono}`;
      put(shorten(text, 18), data.point(row), font, size, theme.accentText, gap);
    };
    const groups = named(data.facts.clusters, camera.zoom, marks.isolated);
    const group = (g: Group) => {
      const hued = g.hue !== null && marks.hues;
      const font = hued ? `600 13px ${theme.sans}` : `400 12px ${theme.sans}`;
      put(
        shorten(brief(g.name), NAME),
        data.inCube(g.at),
        font,
        13,
        hued ? hue(theme, g.hue!) : theme.ink2,
        4,
      );
    };
    if (marks.locked !== null) mono(marks.locked, 13, true, 10);
    for (const row of marks.ringed) mono(row, 12, true, 6);
    for (const row of marks.near) mono(row, 12, false, 5);
    for (const g of groups) if (g.hue !== null && marks.hues) group(g);
    for (const g of groups) if (g.hue === null || !marks.hues) group(g);
    const room = { left: 4, top: 4, right: camera.width - 4, bottom: camera.height - 4 };
    this.placed = placeLabels(labels, room, taken);
    ctx.textAlign = "center";
    ctx.textBaseline = "middle";
    ctx.lineJoin = "round";
    for (const { label, x, y } of this.placed) {
      ctx.font = label.font;
      ctx.strokeStyle = css(theme.plate);
      ctx.lineWidth = 4;
      ctx.strokeText(label.text, x, y);
      ctx.fillStyle = css(label.colour);
      ctx.fillText(label.text, x, y);
    }
  }

  private gizmo(ctx: CanvasRenderingContext2D, camera: Camera, theme: Theme): void {
    const [x, y] = [30, camera.height - 30];
    ctx.strokeStyle = css(theme.ink3);
    ctx.fillStyle = css(theme.ink3);
    ctx.lineWidth = 1;
    ctx.font = `400 10px ${theme.sans}`;
    ctx.textAlign = "center";
    ctx.textBaseline = "middle";
    camera.axes(GIZMO).forEach(([dx, dy], i) => {
      ctx.beginPath();
      ctx.moveTo(x, y);
      ctx.lineTo(x + dx, y + dy);
      ctx.stroke();
      if (Math.hypot(dx, dy) > 7) ctx.fillText(String(i + 1), x + dx * 1.4, y + dy * 1.4);
    });
  }
}

/** The groups that are named so near, the highest level first: few from afar, each with those around it when near. */
export function named(groups: readonly Group[], zoom: number, isolated: number | null): Group[] {
  const level = NEARER.filter((least) => zoom >= least).length;
  const shown = groups.filter((g) => (isolated === null ? g.level <= level : g.label === isolated));
  return shown.sort((a, b) => a.level - b.level);
}

/** A group's name in the picture: its first two words. */
function brief(name: string): string {
  return name.split(", ").slice(0, 2).join(", ");
}

function outline(
  ctx: CanvasRenderingContext2D,
  lasso: readonly (readonly [number, number])[],
  theme: Theme,
): void {
  if (lasso.length < 2) return;
  ctx.beginPath();
  lasso.forEach(([x, y], i) => {
    if (i === 0) ctx.moveTo(x, y);
    else ctx.lineTo(x, y);
  });
  ctx.closePath();
  ctx.fillStyle = css(theme.accent);
  ctx.globalAlpha = 0.12;
  ctx.fill();
  ctx.globalAlpha = 1;
  ctx.strokeStyle = css(theme.accent);
  ctx.lineWidth = 1.5;
  ctx.stroke();
}
