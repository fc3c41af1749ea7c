// The cloud itself: WebGL in one draw call, or pixels of a 2D canvas where there is no WebGL.
// In: points, styles, a camera. Out: a canvas. Both give the same picture, but for soft edges.
import {
  BufferAttribute,
  BufferGeometry,
  DataTexture,
  GLSL3,
  LineSegments,
  Matrix4,
  NearestFilter,
  Camera as Plain,
  Points,
  RawShaderMaterial,
  RGBAFormat,
  Scene,
  WebGLRenderer,
} from "three";
import type { Camera } from "./camera";
import { grain, LINK, type Style } from "./colours";
import { type Links, UNPLACED } from "./data";

export interface Cloud {
  readonly canvas: HTMLCanvasElement;
  readonly flat: boolean;
  /** `moved`: where the points go as `blend` goes from 0 to 1. */
  setPoints(positions: Uint16Array, moved: Uint16Array | null): void;
  /** Lines between points, all drawn at once. Drawn where the points are now: to be set again after them. */
  setLinks(links: Links | null): void;
  setBlend(blend: number): void;
  setStyle(style: Style): void;
  setPalette(palette: Uint8Array<ArrayBuffer>): void;
  resize(width: number, height: number, ratio: number): void;
  draw(camera: Camera): void;
  destroy(): void;
}

const VERTEX = `
precision highp float;
in vec4 place;
in vec4 next;
in vec4 style;
uniform float blend;
uniform mat4 view;
uniform sampler2D palette;
uniform float size;
uniform float alpha;
uniform float middle;
uniform float most;
out vec4 colour;
void main() {
  gl_Position = view * vec4(mix(place.xyz, next.xyz, blend) * ${(65535 / 65534).toFixed(9)} - 0.5, 1.0);
  float near = pow(clamp(middle / gl_Position.w, 0.2, 12.0), 0.7);
  gl_PointSize = min(most, size * near * (1.0 + 1.1 * style.y));
  bool nowhere = blend > 0.0 && next.xyz == vec3(1.0); // the compared model has no place for it
  if (style.z == 0.0 || nowhere) gl_Position = vec4(2.0, 2.0, 2.0, 1.0);
  vec3 rgb = texture(palette, vec2((style.x * 255.0 + 0.5) / 256.0, 0.5)).rgb;
  float own = mix(alpha, 0.95, min(1.0, 1.6 * style.y));
  colour = vec4(rgb, clamp(own * near, 0.04, max(own, 0.72)) * style.z);
}`;
const FRAGMENT = `
precision highp float;
in vec4 colour;
out vec4 pixel;
void main() {
  float far = length(gl_PointCoord - 0.5) * 2.0;
  float soft = 1.0 - smoothstep(0.72, 1.0, far);
  if (soft <= 0.0) discard;
  pixel = vec4(colour.rgb, colour.a * soft);
}`;

const LINE_VERTEX = `
precision highp float;
in vec4 place;
in vec4 next;
in float strength;
uniform float blend;
uniform mat4 view;
uniform sampler2D palette;
out vec4 colour;
void main() {
  gl_Position = view * vec4(mix(place.xyz, next.xyz, blend) * ${(65535 / 65534).toFixed(9)} - 0.5, 1.0);
  colour = vec4(texture(palette, vec2((${LINK}.0 + 0.5) / 256.0, 0.5)).rgb, strength);
}`;
const LINE_FRAGMENT = `
precision highp float;
in vec4 colour;
out vec4 pixel;
void main() {
  pixel = colour;
}`;

/** WebGL through three.js. Throws where there is none. */
export class GlCloud implements Cloud {
  readonly flat = false;
  private readonly renderer: WebGLRenderer;
  private readonly scene = new Scene();
  private readonly camera = new Plain();
  private readonly geometry = new BufferGeometry();
  private readonly material: RawShaderMaterial;
  private readonly matrix = new Float32Array(16);
  private readonly lines: LineSegments<BufferGeometry, RawShaderMaterial>;
  private points: Points;
  private positions: Uint16Array = new Uint16Array(0);
  private moved: Uint16Array | null = null;
  private n = 0;
  private ended = false;

  constructor(
    readonly canvas: HTMLCanvasElement,
    lost: () => void,
  ) {
    const options = {
      alpha: true,
      antialias: false,
      depth: false,
      powerPreference: "high-performance" as const,
    };
    const context = canvas.getContext("webgl2", options);
    if (!context) throw new Error("no WebGL");
    canvas.addEventListener("webglcontextlost", (e) => {
      e.preventDefault();
      if (!this.ended) lost();
    });
    this.renderer = new WebGLRenderer({
      canvas,
      context: context as unknown as WebGLRenderingContext,
      ...options,
    });
    this.renderer.setClearColor(0, 0);
    const uniforms = {
      view: { value: new Matrix4() },
      palette: { value: null as DataTexture | null },
      size: { value: 2 },
      alpha: { value: 0.3 },
      middle: { value: 2 },
      most: { value: 40 },
      blend: { value: 0 },
    };
    this.material = new RawShaderMaterial({
      glslVersion: GLSL3,
      vertexShader: VERTEX,
      fragmentShader: FRAGMENT,
      uniforms,
      transparent: true,
      depthTest: false,
      depthWrite: false,
    });
    this.points = new Points(this.geometry, this.material);
    this.points.frustumCulled = false;
    const lines = { vertexShader: LINE_VERTEX, fragmentShader: LINE_FRAGMENT };
    const { view, blend, palette } = uniforms;
    const drawn = { transparent: true, depthTest: false, depthWrite: false, glslVersion: GLSL3 };
    const material = new RawShaderMaterial({ ...lines, ...drawn, uniforms: { view, blend, palette } });
    this.lines = new LineSegments(new BufferGeometry(), material);
    this.lines.frustumCulled = false;
    this.lines.visible = false;
    this.lines.renderOrder = -1;
    this.scene.add(this.points, this.lines);
    this.scene.matrixAutoUpdate = false;
    this.points.matrixAutoUpdate = false;
    this.lines.matrixAutoUpdate = false;
  }

  setPoints(positions: Uint16Array, moved: Uint16Array | null): void {
    const n = positions.length / 3;
    if (n !== this.n) this.geometry.dispose();
    this.n = n;
    this.positions = positions;
    this.moved = moved;
    const place = new BufferAttribute(four(positions), 4, true);
    this.geometry.setAttribute("place", place);
    this.geometry.setAttribute("next", moved ? new BufferAttribute(four(moved), 4, true) : place);
  }

  setLinks(links: Links | null): void {
    this.lines.geometry.dispose();
    this.lines.visible = links !== null;
    if (links === null) return;
    const geometry = new BufferGeometry();
    const place = new BufferAttribute(four(this.positions, links.ends), 4, true);
    geometry.setAttribute("place", place);
    geometry.setAttribute(
      "next",
      this.moved ? new BufferAttribute(four(this.moved, links.ends), 4, true) : place,
    );
    geometry.setDrawRange(0, links.ends.length); // three counts by "position", which there is none of
    const strength = new Uint8Array(2 * links.strength.length);
    for (let i = 0; i < strength.length; i++) strength[i] = links.strength[i >> 1]!;
    geometry.setAttribute("strength", new BufferAttribute(strength, 1, true));
    this.lines.geometry = geometry;
  }

  setBlend(blend: number): void {
    this.material.uniforms.blend!.value = blend;
  }

  setStyle({ bytes, order }: Style): void {
    const now = this.geometry.getAttribute("style") as BufferAttribute | undefined;
    if (now && now.array.length === bytes.length) {
      (now.array as Uint8Array).set(bytes);
      now.needsUpdate = true;
      const index = this.geometry.index!;
      (index.array as Uint32Array).set(order);
      index.needsUpdate = true;
      return;
    }
    this.geometry.setAttribute("style", new BufferAttribute(bytes.slice(), 4, true));
    this.geometry.setIndex(new BufferAttribute(order.slice(), 1));
  }

  setPalette(colours: Uint8Array<ArrayBuffer>): void {
    const { palette } = this.material.uniforms;
    palette!.value?.dispose();
    const texture = new DataTexture(colours, 256, 1, RGBAFormat);
    texture.magFilter = NearestFilter;
    texture.minFilter = NearestFilter;
    texture.needsUpdate = true;
    palette!.value = texture;
  }

  resize(width: number, height: number, ratio: number): void {
    this.renderer.setPixelRatio(ratio);
    this.renderer.setSize(width, height, false);
    const { size, alpha } = grain(this.n, width);
    this.material.uniforms.size!.value = size * ratio;
    this.material.uniforms.alpha!.value = alpha;
    this.material.uniforms.most!.value = Math.max(11, 1.6 * size) * ratio;
  }

  draw(camera: Camera): void {
    const { view, middle } = this.material.uniforms;
    view!.value.fromArray(camera.matrix(this.matrix));
    middle!.value = camera.start.distance;
    this.renderer.render(this.scene, this.camera);
  }

  destroy(): void {
    this.ended = true;
    this.geometry.dispose();
    this.material.uniforms.palette!.value?.dispose();
    this.material.dispose();
    this.lines.geometry.dispose();
    this.lines.material.dispose();
    this.renderer.dispose();
    if (!this.renderer.getContext().isContextLost()) this.renderer.forceContextLoss();
  }
}

/** Rows of 8 bytes, all or some: some drivers copy those of 6 at every draw. */
function four(positions: Uint16Array, rows: Int32Array | null = null): Uint16Array {
  const n = rows?.length ?? positions.length / 3;
  const out = new Uint16Array(4 * n);
  for (let i = 0; i < n; i++) {
    const row = rows ? rows[i]! : i;
    out[4 * i] = positions[3 * row]!;
    out[4 * i + 1] = positions[3 * row + 1]!;
    out[4 * i + 2] = positions[3 * row + 2]!;
  }
  return out;
}

/** Pixels, point by point. */
export class FlatCloud implements Cloud {
  readonly flat = true;
  private positions: Uint16Array = new Uint16Array(0);
  private moved: Uint16Array | null = null;
  private links: Links | null = null;
  private blend = 0;
  private style: Style | null = null;
  private palette: Uint8Array = new Uint8Array(1024);
  private xy = new Float32Array(0);
  private depths = new Float32Array(0);
  private ratio = 1;

  constructor(readonly canvas: HTMLCanvasElement) {}

  setPoints(positions: Uint16Array, moved: Uint16Array | null): void {
    this.positions = positions;
    this.moved = moved;
    this.xy = new Float32Array((positions.length / 3) * 2);
    this.depths = new Float32Array(positions.length / 3);
  }

  setLinks(links: Links | null): void {
    this.links = links;
  }

  setBlend(blend: number): void {
    this.blend = blend;
  }

  setStyle(style: Style): void {
    this.style = style;
  }

  setPalette(palette: Uint8Array): void {
    this.palette = palette;
  }

  resize(width: number, height: number, ratio: number): void {
    this.ratio = ratio;
    this.canvas.width = Math.max(1, Math.round(width * ratio));
    this.canvas.height = Math.max(1, Math.round(height * ratio));
  }

  draw(camera: Camera): void {
    const ctx = this.canvas.getContext("2d");
    const { style, xy, depths, palette, ratio } = this;
    if (!ctx || !style) return;
    const { width, height } = this.canvas;
    // One end or the other: flat, nothing moves in between.
    const points = this.moved && this.blend > 0.5 ? this.moved : this.positions;
    camera.projectAll(points, UNPLACED, xy, depths);
    const image = ctx.createImageData(width, height);
    const out = image.data;
    const { size, alpha } = grain(depths.length, width / ratio);
    const middle = camera.start.distance;
    for (const row of style.order) {
      const visible = style.bytes[4 * row + 2]! / 255;
      const x = xy[2 * row]! * ratio;
      if (visible === 0 || !(x > -20 && x < width + 20)) continue;
      const y = xy[2 * row + 1]! * ratio;
      const emphasis = style.bytes[4 * row + 1]! / 255;
      const near = Math.max(0.2, Math.min(12, middle / depths[row]!)) ** 0.7;
      const most = Math.max(11, 1.6 * size);
      const radius = (Math.min(most, size * near * (1 + 1.1 * emphasis)) * ratio) / 2;
      const own = alpha + (0.95 - alpha) * Math.min(1, 1.6 * emphasis);
      const a = Math.max(0.04, Math.min(Math.max(own, 0.72), own * near)) * visible;
      const code = 4 * style.bytes[4 * row]!;
      dot(out, width, height, x, y, radius, palette, code, a);
    }
    ctx.putImageData(image, 0, 0);
    this.line(ctx);
  }

  private line(ctx: CanvasRenderingContext2D): void {
    const { links, xy, palette, ratio } = this;
    if (!links) return;
    ctx.strokeStyle = `rgb(${palette.slice(4 * LINK, 4 * LINK + 3).join(",")})`;
    ctx.lineWidth = ratio;
    ctx.globalCompositeOperation = "destination-over";
    links.strength.forEach((strength, i) => {
      const [a, b] = [links.ends[2 * i]!, links.ends[2 * i + 1]!];
      ctx.globalAlpha = strength / 255;
      ctx.beginPath();
      ctx.moveTo(xy[2 * a]! * ratio, xy[2 * a + 1]! * ratio);
      ctx.lineTo(xy[2 * b]! * ratio, xy[2 * b + 1]! * ratio);
      ctx.stroke();
    });
    ctx.globalAlpha = 1;
    ctx.globalCompositeOperation = "source-over";
  }

  destroy(): void {
    this.canvas.width = 1;
    this.canvas.height = 1;
  }
}

/** Lays a disc over what is there. */
function dot(
  out: Uint8ClampedArray,
  width: number,
  height: number,
  x: number,
  y: number,
  radius: number,
  palette: Uint8Array,
  code: number,
  alpha: number,
): void {
  const [left, right] = [Math.max(0, Math.floor(x - radius)), Math.min(width - 1, Math.ceil(x + radius))];
  const [top, bottom] = [Math.max(0, Math.floor(y - radius)), Math.min(height - 1, Math.ceil(y + radius))];
  for (let py = top; py <= bottom; py++)
    for (let px = left; px <= right; px++) {
      const edge = radius + 0.5 - Math.hypot(px + 0.5 - x, py + 0.5 - y);
      if (edge <= 0) continue;
      const a = alpha * Math.min(1, edge);
      const i = 4 * (py * width + px);
      const below = out[i + 3]! / 255;
      const together = a + below * (1 - a);
      for (let c = 0; c < 3; c++)
        out[i + c] = (palette[code + c]! * a + out[i + c]! * below * (1 - a)) / together;
      out[i + 3] = 255 * together;
    }
}
