const shots = [...document.querySelectorAll('.shot')];
const parts = [...document.querySelectorAll('section[data-benchmark]')];
const press = (buttons, chosen) => buttons.forEach(b => b.setAttribute('aria-pressed', b === chosen));
const views = [...document.querySelectorAll('button[data-show]')];
const filters = [...document.querySelectorAll('button[data-only]')];
const orders = [...document.querySelectorAll('button[data-order]')];
let current = -1;

function show(button) {
  document.body.dataset.view = button.dataset.show;
  press(views, button);
}
function only(button) {
  parts.forEach(p => { p.hidden = button.dataset.only !== '' && p.dataset.benchmark !== button.dataset.only; });
  press(filters, button);
  current = -1;
}
const keys = {
  losses: shot => Number(shot.dataset.lowest),
  gains: shot => -Number(shot.dataset.highest),
  changes: shot => -Math.max(Math.abs(shot.dataset.lowest), Math.abs(shot.dataset.highest)),
};
function order(button) {
  const key = keys[button.dataset.order];
  document.querySelectorAll('.shots').forEach(box =>
    [...box.children].sort((a, b) => key(a) - key(b)).forEach(shot => box.append(shot)));
  press(orders, button);
  current = -1;
}
function visible() {
  return [...document.querySelectorAll('.shot')].filter(s => s.offsetParent !== null);
}
function go(step) {
  const here = visible();
  if (!here.length) return;
  current = Math.min(Math.max(current + step, 0), here.length - 1);
  shots.forEach(s => s.classList.toggle('current', s === here[current]));
  here[current].scrollIntoView({block: 'center'});
}
views.forEach(b => b.addEventListener('click', () => show(b)));
filters.forEach(b => b.addEventListener('click', () => only(b)));
orders.forEach(b => b.addEventListener('click', () => order(b)));
const opacity = document.getElementById('opacity');
opacity?.addEventListener('input', () => document.body.style.setProperty('--opacity', opacity.value / 100));
const size = document.getElementById('size');
size?.addEventListener('input', () => document.body.style.setProperty('--cell', size.value + 'rem'));

// While a contestant's picture is held, the reference's stands in its place: what differs then moves.
document.querySelectorAll('.stack.swaps').forEach(stack => {
  const base = stack.closest('.cells').querySelector('.reference .stack');
  const swap = held => stack.querySelectorAll('img').forEach(image => {
    image.dataset.own ??= image.src;
    const other = base.querySelector('img.' + image.className);
    image.src = held ? (other ? other.src : '') || image.dataset.own : image.dataset.own;
    if (!other) image.style.visibility = held ? 'hidden' : '';
  });
  stack.addEventListener('pointerdown', event => { swap(true); event.preventDefault(); });
  ['pointerup', 'pointerleave', 'pointercancel'].forEach(name => stack.addEventListener(name, () => swap(false)));
});

// Points of frames that are shown lead to them.
document.querySelectorAll('circle[data-name]').forEach(point => {
  const shot = point.closest('section').querySelector(`.shot[data-frame="${CSS.escape(point.dataset.name)}"]`);
  if (!shot) return;
  point.classList.add('shown');
  point.addEventListener('click', () => { current = visible().indexOf(shot); go(0); });
});

document.addEventListener('keydown', event => {
  if (event.ctrlKey || event.metaKey || event.altKey || event.target.tagName === 'INPUT') return;
  if (event.key === 'j' || event.key === 'ArrowRight') go(1);
  else if (event.key === 'k' || event.key === 'ArrowLeft') go(-1);
  else if (event.key >= '1' && event.key <= String(views.length)) show(views[event.key - 1]);
  else if (event.key === 'b' && filters.length) {
    const now = filters.findIndex(f => f.getAttribute('aria-pressed') === 'true');
    only(filters[(now + 1) % filters.length]);
  } else if (event.key === ' ') document.body.classList.add('photo');
  else return;
  event.preventDefault();
});
document.addEventListener('keyup', event => { if (event.key === ' ') document.body.classList.remove('photo'); });
