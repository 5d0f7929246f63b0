// Names the case of the dot that is pointed at, tapped, or reached with the arrow keys in its lane.
// Without this script the dots' <title> does, where the browser shows titles.
const tip = document.getElementById("tip");
function name_case(event) {
  const dot = event.target.closest?.(".dot");
  tip.hidden = !dot;
  if (!dot) return;
  const title = dot.querySelector("title");
  if (title) {
    dot.setAttribute("aria-label", title.textContent);
    title.remove();  // or the browser would show its own beside ours
  }
  tip.textContent = dot.getAttribute("aria-label");
  tip.style.left = "0";  // or its width would be what is left beside its last place
  const box = dot.getBoundingClientRect();
  const room = document.documentElement.clientWidth - tip.offsetWidth - 4;
  tip.style.left = Math.max(Math.min(box.x + box.width / 2 - tip.offsetWidth / 2, room), 4) + "px";
  tip.style.top = Math.max(box.y - tip.offsetHeight - 6, 4) + "px";
}
addEventListener("pointerover", name_case);
addEventListener("focusin", name_case);
addEventListener("scroll", () => { tip.hidden = true; }, true);
addEventListener("keydown", (event) => {
  const lane = document.activeElement.closest(".lane");
  const step = { ArrowRight: 1, ArrowLeft: -1 }[event.key];
  if (!lane || !step) return;
  const dots = [...lane.querySelectorAll(".dot")];
  const next = dots.indexOf(document.activeElement) + step;
  dots[Math.max(Math.min(next, dots.length - 1), 0)]?.focus({ preventScroll: true });
  event.preventDefault();
});
