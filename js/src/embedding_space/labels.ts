// Where labels go: the most important first, each beside its point, dropped rather than overlapped.
// In: candidates with their size. Out: those that fit, with the place of their text.
export interface Label {
  readonly text: string;
  readonly x: number;
  readonly y: number;
  readonly width: number;
  readonly height: number;
  /** Pixels between the point and its text. */
  readonly gap: number;
}

export interface Box {
  readonly left: number;
  readonly top: number;
  readonly right: number;
  readonly bottom: number;
}

export interface Placed<L extends Label> {
  readonly label: L;
  /** Middle of the text. */
  readonly x: number;
  readonly y: number;
}

const meets = (a: Box, b: Box) =>
  a.left < b.right && b.left < a.right && a.top < b.bottom && b.top < a.bottom;

/** Places where a label may stand, best first: above, right, left, below. */
function places({ x, y, width, height, gap }: Label): [number, number][] {
  const [w, h] = [width / 2 + gap, height / 2 + gap];
  return [
    [x, y - h],
    [x + w, y],
    [x - w, y],
    [x, y + h],
    [x + w * 0.8, y - h],
    [x - w * 0.8, y - h],
  ];
}

/** Greedy: in the order that is given; `taken` are boxes that no label may cover. */
export function placeLabels<L extends Label>(
  labels: readonly L[],
  room: Box,
  taken: readonly Box[] = [],
): Placed<L>[] {
  const boxes = [...taken];
  const out: Placed<L>[] = [];
  for (const label of labels) {
    if (label.x < room.left || label.x > room.right || label.y < room.top || label.y > room.bottom) continue;
    for (const [x, y] of places(label)) {
      const box = {
        left: x - label.width / 2 - 2,
        right: x + label.width / 2 + 2,
        top: y - label.height / 2,
        bottom: y + label.height / 2,
      };
      const fits =
        box.left >= room.left && box.right <= room.right && box.top >= room.top && box.bottom <= room.bottom;
      if (!fits || boxes.some((b) => meets(b, box))) continue;
      boxes.push(box);
      out.push({ label, x, y });
      break;
    }
  }
  return out;
}
