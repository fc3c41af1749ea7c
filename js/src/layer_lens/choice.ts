// Arrow keys in a row of radio buttons.
// In: the button that has the focus, a key. Out: the next one is chosen.

export function stepRadio(target: HTMLElement, event: KeyboardEvent): void {
  if (!event.key.startsWith("Arrow")) return;
  event.stopPropagation();
  event.preventDefault();
  const buttons = [...(target.parentElement?.querySelectorAll<HTMLElement>("[role=radio]") ?? [])];
  const move = event.key === "ArrowRight" || event.key === "ArrowDown" ? 1 : -1;
  const next = buttons[(buttons.indexOf(target) + move + buttons.length) % buttons.length];
  next?.focus();
  next?.click();
}
