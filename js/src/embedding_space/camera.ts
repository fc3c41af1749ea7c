// Where the picture is looked at from: orbit, zoom to a point, flights; and where each point lands on the screen.
// In: gestures, points in the cube from -0.5 to 0.5. Out: a matrix for the shader, pixels for everything else.
export type Point = readonly [number, number, number];

/** Half the angle of view. */
const LENS = Math.tan((17.5 * Math.PI) / 180);
const NEAREST = 0.04;
const FARTHEST = 12;

export interface Pose {
  readonly yaw: number;
  readonly pitch: number;
  readonly distance: number;
  readonly target: Point;
}

export class Camera {
  yaw = 0;
  pitch = 0;
  distance = 2;
  target: Point = [0, 0, 0];
  width = 1;
  height = 1;
  private home: Pose = { yaw: 0, pitch: 0, distance: 2, target: [0, 0, 0] };

  get pose(): Pose {
    return { yaw: this.yaw, pitch: this.pitch, distance: this.distance, target: this.target };
  }

  set(pose: Pose): void {
    Object.assign(this, pose);
  }

  get start(): Pose {
    return this.home;
  }

  /** Nobody has moved it. */
  get atStart(): boolean {
    return JSON.stringify(this.pose) === JSON.stringify(this.home);
  }

  /** How much nearer than at the start. */
  get zoom(): number {
    return this.home.distance / this.distance;
  }

  /** Looks at most of the points from the front: the middle nine tenths fill the plate, outliers lie outside. */
  frame(positions: Uint16Array, unplaced: number): void {
    const n = positions.length / 3;
    const step = Math.max(1, Math.floor(n / 20_000));
    const axes: number[][] = [[], [], []];
    for (let i = 0; i < n; i += step) {
      if (positions[3 * i] === unplaced && positions[3 * i + 1] === unplaced) continue;
      for (let a = 0; a < 3; a++) axes[a]!.push(positions[3 * i + a]! / (unplaced - 1) - 0.5);
    }
    const few = axes[0]!.length < 200;
    const ranges = axes.map((values) => {
      const sorted = Float64Array.from(values).sort();
      const at = (q: number) => sorted[Math.round(q * (sorted.length - 1))] ?? 0;
      return few ? [at(0), at(1)] : [at(0.004), at(0.996)];
    });
    const middle = ranges.map(([a, b]) => (a! + b!) / 2) as unknown as Point;
    const half = ranges.map(([a, b]) => Math.max((b! - a!) / 2, 0.01));
    const aspect = this.width / Math.max(1, this.height);
    const room = 1.12;
    const distance = half[2]! * (few ? 1 : 0.6) + (room / LENS) * Math.max(half[1]!, half[0]! / aspect);
    this.home = { yaw: 0, pitch: 0, distance: Math.min(FARTHEST, distance), target: middle };
    this.set(this.home);
  }

  orbit(dx: number, dy: number): void {
    this.yaw += dx * 0.008;
    this.pitch = Math.max(-1.55, Math.min(1.55, this.pitch + dy * 0.008));
  }

  /** Moves sideways by so many pixels. */
  pan(dx: number, dy: number): void {
    const scale = (2 * LENS * this.distance) / this.height;
    this.shift(-dx * scale, dy * scale);
  }

  /** Nearer by a factor, towards what is under the pixel (x, y). */
  zoomAt(factor: number, x: number, y: number): void {
    const distance = Math.max(NEAREST, Math.min(FARTHEST, this.distance / factor));
    const scale = (2 * LENS * (this.distance - distance)) / this.height;
    this.shift((x - this.width / 2) * scale, (this.height / 2 - y) * scale);
    this.distance = distance;
  }

  private shift(right: number, up: number): void {
    const [cy, sy, cp, sp] = this.turns();
    const [x, y, z] = this.target;
    this.target = [x + right * cy + up * sp * sy, y + up * cp, z + right * sy - up * sp * cy];
  }

  private turns(): [number, number, number, number] {
    return [Math.cos(this.yaw), Math.sin(this.yaw), Math.cos(this.pitch), Math.sin(this.pitch)];
  }

  /** Column-major, for the shader: from the cube to clip space. */
  matrix(out: Float32Array): Float32Array {
    const [cy, sy, cp, sp] = this.turns();
    const [tx, ty, tz] = this.target;
    const f = 1 / LENS;
    const fx = f / (this.width / Math.max(1, this.height));
    // Rows of the rotation.
    const rx = [cy, 0, sy] as const;
    const ry = [sp * sy, cp, -sp * cy] as const;
    const rz = [-cp * sy, sp, cp * cy] as const;
    const dot = (r: readonly [number, number, number]) => r[0] * tx + r[1] * ty + r[2] * tz;
    const w = [-rz[0], -rz[1], -rz[2], dot(rz) + this.distance] as const;
    const near = 0.002;
    for (let c = 0; c < 3; c++) {
      out[4 * c] = fx * rx[c]!;
      out[4 * c + 1] = f * ry[c]!;
      out[4 * c + 2] = w[c]!;
      out[4 * c + 3] = w[c]!;
    }
    out[12] = -fx * dot(rx);
    out[13] = -f * dot(ry);
    out[14] = w[3] - 2 * near;
    out[15] = w[3];
    return out;
  }

  /** Pixel and depth of one point; depth <= 0 is behind the eye. */
  project(point: Point): [number, number, number] {
    const [cy, sy, cp, sp] = this.turns();
    const [x, y, z] = [point[0] - this.target[0], point[1] - this.target[1], point[2] - this.target[2]];
    const x1 = cy * x + sy * z;
    const z1 = -sy * x + cy * z;
    const y2 = cp * y - sp * z1;
    const depth = this.distance - (sp * y + cp * z1);
    const scale = this.height / 2 / LENS / Math.max(depth, 1e-6);
    return [this.width / 2 + x1 * scale, this.height / 2 - y2 * scale, depth];
  }

  /** Pixels of all points into `xy` (2 per point) and their depths; NaN where a point is behind the eye or has no place. */
  projectAll(positions: Uint16Array, unplaced: number, xy: Float32Array, depths: Float32Array): void {
    const m = this.matrix(new Float32Array(16));
    const n = positions.length / 3;
    const unit = 1 / (unplaced - 1);
    const [hw, hh] = [this.width / 2, this.height / 2];
    for (let i = 0; i < n; i++) {
      const x = positions[3 * i]! * unit - 0.5;
      const y = positions[3 * i + 1]! * unit - 0.5;
      const z = positions[3 * i + 2]! * unit - 0.5;
      const w = m[3]! * x + m[7]! * y + m[11]! * z + m[15]!;
      const gone = w <= 0.002 || (positions[3 * i] === unplaced && positions[3 * i + 1] === unplaced);
      xy[2 * i] = gone ? Number.NaN : hw + (hw * (m[0]! * x + m[4]! * y + m[8]! * z + m[12]!)) / w;
      xy[2 * i + 1] = gone ? Number.NaN : hh - (hh * (m[1]! * x + m[5]! * y + m[9]! * z + m[13]!)) / w;
      depths[i] = w;
    }
  }

  /** Ends of the three axes around the origin, in pixels of a gizmo of this size. */
  axes(size: number): [number, number][] {
    const [cy, sy, cp, sp] = this.turns();
    return [
      [cy * size, -sp * sy * size],
      [0, -cp * size],
      [sy * size, sp * cy * size],
    ];
  }
}

/** The pose between two, t from 0 to 1. */
export function between(a: Pose, b: Pose, t: number): Pose {
  const mix = (x: number, y: number) => x + (y - x) * t;
  return {
    yaw: mix(a.yaw, b.yaw),
    pitch: mix(a.pitch, b.pitch),
    distance: Math.exp(mix(Math.log(a.distance), Math.log(b.distance))),
    target: a.target.map((v, i) => mix(v, b.target[i]!)) as unknown as Point,
  };
}
