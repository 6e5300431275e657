const frames = [...document.querySelectorAll('.frame')];
const views = [...document.querySelectorAll('button[data-view]')];
let current = 0;
function show(view) {
  views.forEach(b => b.setAttribute('aria-pressed', b.dataset.view === view));
  document.querySelectorAll('img[data-name]').forEach(i => { i.src = 'pictures/' + i.dataset.name + '.' + view + '.png'; });
}
function go(step) {
  current = Math.min(Math.max(current + step, 0), frames.length - 1);
  frames.forEach((f, n) => f.classList.toggle('current', n === current));
  frames[current]?.scrollIntoView({block: 'center'});
}
views.forEach(b => b.addEventListener('click', () => show(b.dataset.view)));
document.addEventListener('keydown', e => {
  if (e.ctrlKey || e.metaKey || e.altKey) return;
  if (e.key === 'j' || e.key === 'ArrowRight') go(1);
  else if (e.key === 'k' || e.key === 'ArrowLeft') go(-1);
  else if (e.key >= '1' && e.key <= String(views.length)) show(views[e.key - 1].dataset.view);
  else return;
  e.preventDefault();
});
