// Tokens set in lines of text, so that only the lines in sight need to be in the page.
// In: the tokens as words, how wide each is, how wide a line may be. Out: the first token of each line.

/** Scripts that are written without spaces: a line may end after any of their characters. */
const CLOSED = /^[\p{Script=Han}\p{Script=Hiragana}\p{Script=Katakana}\p{Script=Thai}]/u;
const SPACE = /^\s/;
const BREAK = /[\s\u23ce\u2423]$/;

/** Whether a line may begin with token `i`. */
function opens(names: readonly string[], i: number): boolean {
  const name = names[i]!;
  return i === 0 || SPACE.test(name) || CLOSED.test(name) || BREAK.test(names[i - 1]!);
}

/** The first token of each line. Words stay whole where they fit into a line at all. */
export function breakLines(names: readonly string[], widths: ArrayLike<number>, room: number): number[] {
  const starts = names.length > 0 ? [0] : [];
  let used = 0;
  let i = 0;
  while (i < names.length) {
    let end = i + 1;
    let word = widths[i]!;
    while (end < names.length && !opens(names, end)) word += widths[end++]!;
    if (used > 0 && used + word > room) {
      starts.push(i);
      used = 0;
    }
    for (; i < end; i++) {
      const wide = widths[i]!;
      if (used > 0 && used + wide > room) {
        starts.push(i);
        used = 0;
      }
      used += wide;
    }
  }
  return starts;
}

/** The line that a token is in. */
export function lineOf(starts: readonly number[], token: number): number {
  let [low, high] = [0, starts.length - 1];
  while (low < high) {
    const middle = (low + high + 1) >> 1;
    if (starts[middle]! <= token) low = middle;
    else high = middle - 1;
  }
  return low;
}
