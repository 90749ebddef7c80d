// The page of a site: asks for a photo, shows what the module finds.

import {makeCropper} from './crop.js';
import {open} from './retrieval-search.js';

const opening = open(new URL('.', location.href));  // before all else, which it does not wait for
const PER_PAGE = 24, EXAMPLES = 6;
const drawn = new Map();  // the canvases on show, by the id of their photo
const addresses = new Map();  // of the pictures still to come, by canvas; each comes once its canvas is nearly in sight
const sight = new IntersectionObserver(seen => {
  for (const {target, isIntersecting} of seen) if (isIntersecting) draw(target);
}, {rootMargin: '50%'});
const seeAgain = () => { for (const canvas of addresses.keys()) sight.observe(canvas); };  // what failed
addEventListener('online', seeAgain);
addEventListener('beforeprint', () => { for (const canvas of addresses.keys()) draw(canvas); });
const root = document.querySelector('.search'), $ = selector => root.querySelector(selector);
const cards = $('.cards'), large = $('.large'), spoken = $('.spoken'), picture = $('.picture');
let gallery, asked = null, answered = null, k = PER_PAGE, hits = [], shown = -1, looked = null, running = false, waiting = false, ready = false;

const make = (tag, facts = {}, ...children) => {
  const made = Object.assign(document.createElement(tag), facts);
  made.append(...children);
  return made;
};
const complain = line => {
  const lines = [line, ...gallery?.complaints ?? []].filter(Boolean);
  const notes = lines.map(textContent => make('p', {className: 'note error', textContent}));
  if (asked && !ready && !line) notes.push(make('p', {className: 'note', textContent: 'Loading the search, which this browser then keeps.'}));
  $('.complaint').replaceChildren(...notes);
};
const titleOf = hit => hit.metadata[gallery.names.title] || hit.name.split('/').pop().replace(/\.[^.]*$/, '');
const cropper = makeCropper(picture, () => search());

// Searches again once the search that runs is done: of many boxes that are drawn, the last one counts.
async function search() {
  if (!asked) return;
  if (running) {
    waiting = true;
    return;
  }
  running = true;
  const mine = asked, {view} = cropper;
  root.classList.add('asking');
  root.setAttribute('aria-busy', 'true');
  try {
    gallery ??= await opening;
    const filters = readFilters(), whole = view.turn === 0 && view.box.join() === '0,0,1,1';
    const found = 'item' in mine && whole
      ? await gallery.searchItem(mine.item, {k, ...filters})
      : await gallery.search(await mine.photo(), {k, ...filters, ...view});
    if (mine === asked) {
      answered = Object.assign(mine, {view});
      show(found);
    }
  } catch (error) {
    if (mine === asked) fail(error.message);
  }
  running = false;
  if (waiting) {
    waiting = false;
    await search();
    return;
  }
  root.classList.remove('asking');
  root.removeAttribute('aria-busy');
}

// What is on show stays, with the photo that it was found with.
function fail(line) {
  if (!answered) root.dataset.state = 'failed';
  else if (asked !== answered) present(answered);
  complain(line);
}

function show(found) {
  ready = true;
  complain('');
  hits = found;
  seeAgain();
  root.dataset.state = 'found';
  const {embed, search} = found.milliseconds, taught = new Set(found.teacher ?? []);
  for (const [id, canvas] of drawn) {
    if (found.some(hit => hit.id === id)) continue;
    sight.unobserve(canvas);
    addresses.delete(canvas);
    canvas.width = canvas.height = 1;  // it is not collected for long
    drawn.delete(id);
  }
  cards.replaceChildren(...found.map((hit, place) => card(hit, place, taught)));
  const first = found.slice(0, found.teacher?.length ?? 0), agreed = first.filter(hit => taught.has(hit.id)).length;
  $('.summary').textContent = (found.length ? `${Math.round(embed + search)} ms` : 'No results with these filters.')
    + (gallery.partial ? ` · among the ${found.searched.toLocaleString()} photos nearest to yours` : '')
    + (found.length && found.teacher ? ` · ${agreed} of the first ${first.length} are the teacher's, too` : '');
  $('.more').hidden = found.length < k || k >= gallery.count;
  spoken.textContent = `${found.length} results`;
}

function card(hit, place, taught) {
  const title = titleOf(hit), button = make('button', {type: 'button', className: 'hit', tabIndex: place ? -1 : 0,
    ariaLabel: `${place + 1}. ${title}, similarity ${hit.score.toFixed(3)}`});
  button.append(pictureOf(hit, place), make('span', {className: 'rank', textContent: place + 1}));
  if (taught.has(hit.id)) button.append(make('span', {className: 'mark agreed', title: 'Among the first of the teacher, too', textContent: 'teacher'}));
  const line = make('span', {className: 'line'}, make('span', {className: 'name', title: hit.name}, make('span', {textContent: title})),
    make('span', {className: 'score', textContent: hit.score.toFixed(3)}));
  button.addEventListener('click', () => look(place));
  return Object.assign(make('li', {className: 'card'}, button, line));
}

// The picture of a result. One of this host is drawn: of images, browsers keep the pixels long after they are gone.
function pictureOf({id, thumbnail}, place) {
  if (new URL(thumbnail).origin !== location.origin) {
    const image = make('img', {alt: '', loading: place < 12 ? 'eager' : 'lazy', draggable: false});
    image.onerror = () => image.classList.add('none');
    image.src = thumbnail;
    return image;
  }
  if (!drawn.has(id)) {
    const canvas = make('canvas', {width: 1, height: 1});
    drawn.set(id, canvas);
    addresses.set(canvas, thumbnail);
    sight.observe(canvas);
  }
  return drawn.get(id);
}

async function draw(canvas) {
  const address = addresses.get(canvas), wide = canvas.clientWidth;
  sight.unobserve(canvas);
  if (!addresses.delete(canvas)) return;
  try {
    const bitmap = await readSquare(address, Math.ceil(wide * devicePixelRatio));
    if (!canvas.isConnected) return bitmap.close();
    canvas.width = canvas.height = bitmap.width;
    canvas.getContext('bitmaprenderer').transferFromImageBitmap(bitmap);
  } catch {
    if (canvas.isConnected) addresses.set(canvas, address);
  }
}

// The middle of a picture, so many pixels wide at most.
async function readSquare(address, most) {
  const response = await fetch(address), whole = await createImageBitmap(await response.blob());
  const {width, height} = whole, edge = Math.min(width, height), side = Math.min(edge, most);
  const options = {resizeWidth: side, resizeHeight: side, resizeQuality: 'medium'};
  const bitmap = await createImageBitmap(whole, (width - edge) / 2, (height - edge) / 2, edge, edge, options);
  whole.close();
  return bitmap;
}

function linkOf(hit) {
  const address = hit.metadata[gallery.names.link];
  return address && /^https?:/.test(URL.parse?.(address, location.href)?.href ?? address) ? address : '';
}

// The large view
function look(place) {
  shown = place;
  const hit = looked = hits[place], image = large.querySelector('img'), asking = large.querySelector('canvas'), from = picture.querySelector('canvas');
  image.alt = titleOf(hit);
  image.src = hit.thumbnail;  // until the picture is there, and if it never is
  const whole = make('img', {src: hit.picture});
  whole.decode().then(() => { if (looked === hit) image.src = whole.src; }, () => {});
  [asking.width, asking.height] = [from.width, from.height];
  asking.getContext('2d').drawImage(from, 0, 0);
  const facts = [['similarity', hit.score.toFixed(3)], ['file', hit.name], ...Object.entries(hit.metadata)];
  const about = [make('h2', {textContent: titleOf(hit)}), make('dl', {}, ...facts.map(([name, value]) => make('div', {},
    make('dt', {textContent: name}), make('dd', {textContent: value}))))];
  const link = linkOf(hit);
  if (link) about.push(make('p', {}, make('a', {href: link, rel: 'noopener', textContent: 'Open its page'})));
  large.querySelector('.about').replaceChildren(...about);
  large.querySelector('.previous').disabled = place === 0;
  large.querySelector('.next').disabled = place === hits.length - 1;
  if (!large.open) large.showModal();
  if (document.activeElement.disabled || !large.contains(document.activeElement)) large.focus();
}

const step = by => { if (hits[shown + by]) look(shown + by); };
large.querySelector('.previous').addEventListener('click', () => step(-1));
large.querySelector('.next').addEventListener('click', () => step(1));
large.querySelector('.close').addEventListener('click', () => large.close());
large.querySelector('.use').addEventListener('click', () => {
  large.close();
  useItem(looked);  // a later search may have brought others
});
large.addEventListener('click', event => { if (event.target === large) large.close(); });
large.addEventListener('keydown', event => step({ArrowLeft: -1, ArrowRight: 1}[event.key] ?? 0));
large.addEventListener('close', () => focusOn(shown));

// From result to result
function focusOn(place) {
  const buttons = [...cards.querySelectorAll('.hit')], next = buttons[place];
  if (!next) return;
  for (const button of buttons) button.tabIndex = button === next ? 0 : -1;
  next.focus();
}

cards.addEventListener('keydown', event => {
  const buttons = [...cards.querySelectorAll('.hit')], place = buttons.indexOf(event.target);
  const across = buttons.filter(button => button.offsetParent && button.parentElement.offsetTop === buttons[0].parentElement.offsetTop).length;
  const by = {ArrowLeft: -1, ArrowRight: 1, ArrowUp: -across, ArrowDown: across}[event.key];
  if (event.key === ' ' || event.key === 'o') look(place);
  else if (by && buttons[place + by]) focusOn(place + by);
  else return;
  event.preventDefault();
});

// What is searched with
function present(next) {
  asked = next;
  history.replaceState(null, '', next.address);
  cropper.look(next.view);
  cropper.show(next.pictures);
  $('.caption').textContent = next.caption;
}

function ask(next) {
  k = PER_PAGE;
  present(next);
  complain('');
  picture.closest('.ask').classList.remove('editing');
  search();
}

async function usePhoto(photo) {
  if (!photo) return;
  ask({photo: async () => photo, pictures: [photo], caption: photo.name || 'Pasted photo', address: location.pathname});
}

function useItem(hit) {
  let photo = null;
  const load = async () => {
    const response = await fetch(hit.picture).catch(() => null);
    if (!response?.ok) throw new Error('The picture of that photo cannot be loaded, so no part of it can be searched with.');
    return response.blob();
  };
  ask({item: hit.id, photo: () => photo ??= load(), pictures: [hit.picture, hit.thumbnail], caption: titleOf(hit), address: `#${hit.key}`});
}

for (const input of root.querySelectorAll('.file')) {
  input.addEventListener('change', () => {
    usePhoto(input.files[0]);
    input.value = '';
  });
  if (input.files.length) usePhoto(input.files[0]);  // chosen before this ran
}
addEventListener('paste', event => {
  const photo = [...event.clipboardData.files].find(file => file.type.startsWith('image/'));
  if (photo) usePhoto(photo);
});
addEventListener('dragover', event => {
  event.preventDefault();
  root.classList.toggle('dropping', [...event.dataTransfer.types].includes('Files'));
});
addEventListener('dragleave', event => { if (!event.relatedTarget) root.classList.remove('dropping'); });
addEventListener('drop', event => {
  event.preventDefault();
  root.classList.remove('dropping');
  usePhoto(event.dataTransfer.files[0]);
});
$('.clear').addEventListener('click', () => {
  asked = answered = null;
  hits = [];
  complain('');
  root.dataset.state = 'empty';
  history.replaceState(null, '', location.pathname);
});
$('.part').addEventListener('click', () => {
  const editing = picture.closest('.ask').classList.toggle('editing');
  $('.part').setAttribute('aria-expanded', editing);
});
$('.more').addEventListener('click', async () => {
  const before = hits.length;
  k += PER_PAGE;
  await search();
  focusOn(before);
});

// Filters
function readFilters() {
  const where = {};
  for (const select of root.querySelectorAll('.column-value')) if (select.value) where[select.dataset.column] = select.value;
  return {where, prefix: $('.prefix')?.value ?? '', cut: $('.cut').value / 100};
}

function addFilters() {
  if (gallery.partial) {
    $('.prefix').closest('label').remove();
    return;
  }
  for (const [name, values] of Object.entries(gallery.columns)) {
    if ([gallery.names.title, gallery.names.link].includes(name)) continue;
    const select = make('select', {className: 'column-value'}, make('option', {value: '', textContent: 'any'}),
      ...values.map(value => make('option', {value, textContent: value})));
    select.dataset.column = name;
    $('.reset').before(make('label', {}, name, select));
  }
}

$('.filters').addEventListener('input', () => {
  const {where, prefix, cut} = readFilters(), on = Boolean(Object.keys(where).length || prefix || cut);
  $('.cut-value').textContent = cut ? `${Math.round(100 * cut)} % of the best` : 'any';
  $('.reset').hidden = !on;
  $('.filters').classList.toggle('on', on);
  k = PER_PAGE;
  search();
});
$('.reset').addEventListener('click', () => {
  for (const each of root.querySelectorAll('.column-value, .prefix')) each.value = '';
  $('.cut').value = 0;
  $('.filters').dispatchEvent(new Event('input'));
});

async function addExamples() {
  const wanted = Math.min(EXAMPLES, gallery.count);
  const items = await Promise.all(Array.from({length: wanted}, (_, i) => gallery.item(Math.floor((i + 0.5) * gallery.count / wanted))));
  $('.examples').replaceChildren(...items.map(hit => {
    const button = make('button', {type: 'button', className: 'example', ariaLabel: `Search with ${titleOf(hit)}`},
      make('img', {src: hit.thumbnail, alt: '', draggable: false}));
    button.addEventListener('click', () => useItem(hit));
    return make('li', {}, button);
  }));
}

async function workOffline() {
  try {
    await navigator.serviceWorker.register('sw.js');
    const {active} = await navigator.serviceWorker.ready;
    const got = performance.getEntriesByType('resource').map(({name}) => name);
    active.postMessage({keep: [location.href.replace(/#.*/, ''), ...got, ...gallery.scripts]});
  } catch {}  // no https, or not allowed: it works online
}

// The photo that the address names, unless another is asked for meanwhile.
async function follow() {
  const key = location.hash.slice(1), before = asked;
  if (!key || key === 'results') return;
  const item = await gallery.find(key), hit = item === null ? null : await gallery.item(item);
  if (asked !== before || location.hash.slice(1) !== key) return;
  if (hit) useItem(hit);
  else complain('The photo of this address is no longer in the gallery.');
}

async function start() {
  document.querySelector('.stalled').remove();
  try {
    gallery = await opening;
  } catch (error) {
    fail(error.message);
    return;
  }
  document.querySelector('.size').textContent = `${gallery.count.toLocaleString()} photos`;
  gallery.addEventListener('complaint', () => complain(''));
  addFilters();
  gallery.ready().then(() => { ready = true; }, error => fail(error.message));
  addEventListener('hashchange', follow);
  await follow();
  addExamples().catch(() => {});
  gallery.ready().then(() => setTimeout(workOffline, 1000), () => {});  // it takes nothing from the first search
}

document.querySelector('.skip').addEventListener('click', event => {
  event.preventDefault();  // the address names the photo
  $('#results').focus();
});
start();
