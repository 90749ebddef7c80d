// The map: points that glide between the two models, and their photos where one looks near.

const canvas = element.querySelector('canvas'), pen = canvas.getContext('2d'), by = element.querySelector('.by');
const seen = element.querySelector('.seen'), legend = element.querySelector('.legend'), chosen = element.querySelector('.chosen');
const say = text => { element.querySelector('.state').textContent = text; };
const HUES = ['#3f6fd6', '#e08a1e', '#2a9d6f', '#c4457a', '#7d5bd0', '#1d9bb0', '#a06a3a', '#d0574a', '#7a8f2a', '#b565c9'];
const STEPS = ['#c8372d', '#e08a1e', '#c9b037', '#5aa96b', '#0b7a6f'], OTHER = '#8b8d92';
const GLIDE = 900, TILES = 160, REACH = 14, MOST_CHOSEN = 60;  // ms, photos drawn at once, pixels to a point, photos listed
const pictures = new Map();  // thumbnails by digest
let digests = [], places = {}, now = [], agreement = [], columns = {}, codes = [], hues = [OTHER];
let inks = [], image, dots;  // the colours as pixels, and the pixels of the points
let space = 'student', glide = null, picked = false, zoom = 1, left = 0, top_ = 0, dirty = false;

const unpack = (text, Kind) => new Kind(Uint8Array.from(atob(text), letter => letter.charCodeAt(0)).buffer);

async function load() {
  const answer = await server.photo_map({shown: digests.length > 0});
  if (!answer) {
    say("Can't reach the server. Trying again…");
    setTimeout(load, 5000);
    return;
  }
  if (answer.places) take(answer);
  say(answer.error || (answer.waiting ? 'A first sketch: where each photo belongs is being worked out…' : ''));
  if (answer.waiting) setTimeout(load, 2000);
}

function take(answer) {
  const bytes = unpack(answer.digests, Uint8Array), hex = part => Array.from(part, byte => byte.toString(16).padStart(2, '0')).join('');
  digests = Array.from({length: bytes.length / 16}, (_, i) => hex(bytes.subarray(16 * i, 16 * i + 16)));
  places = Object.fromEntries(Object.entries(answer.places).map(([name, text]) => [name, Float32Array.from(unpack(text, Uint16Array), part => part / 65535)]));
  agreement = unpack(answer.agreement, Uint8Array);
  columns = Object.fromEntries(Object.entries(answer.columns).map(([name, {values, codes}]) => [name, {values, codes: unpack(codes, Uint8Array)}]));
  const before = by.value, options = Object.keys(columns).map(name => new Option(name, `column.${name}`));
  by.replaceChildren(new Option('one', ''), ...(agreement.length ? [new Option('agreement of the two', 'agreement')] : []), ...options);
  by.value = picked ? before : agreement.length ? 'agreement' : options[0]?.value ?? '';
  colour();
  glideTo(space);
  showAll();
}

// What a point is coloured by, and what the colours say.
function colour() {
  const column = columns[by.value.replace('column.', '')], same = !by.value || !(column || agreement.length);
  let named = [];
  if (by.value === 'agreement' && agreement.length) {
    hues = [...STEPS, OTHER];
    codes = Uint8Array.from(agreement, share => share > 100 ? 5 : Math.min(Math.floor(share / 20), 4));
    named = ['under 20 %', '20 to 39 %', '40 to 59 %', '60 to 79 %', '80 % and more', 'not compared'].map((name, i) => [name, hues[i], i]);
  } else if (same || !column) [hues, codes] = [[getComputedStyle(element).getPropertyValue('--accent') || OTHER], new Uint8Array(digests.length)];
  else {
    hues = [...HUES.slice(0, column.values.length), OTHER];
    codes = column.codes;
    named = [...column.values, 'other'].map((name, i) => [name, hues[i], i]);
  }
  inks = hues.map(inkOf);
  const there = new Set(codes);
  legend.replaceChildren(...named.filter(([, , code]) => there.has(code)).map(([name, hue]) => {
    const line = document.createElement('li'), dot = document.createElement('i');
    dot.style.background = hue;
    line.append(dot, name);
    return line;
  }));
  draw();
}

function glideTo(name) {
  space = name in places ? name : 'student';
  const to = places[space], still = now.length !== to.length || matchMedia('(prefers-reduced-motion: reduce)').matches;
  glide = still ? null : {from: Float32Array.from(now), to, start: performance.now()};
  if (still) now = Float32Array.from(to);
  draw();
}

// Drawing

const side = () => Math.min(canvas.width, canvas.height) * zoom;
const toScreen = i => [now[2 * i] * side() + left, now[2 * i + 1] * side() + top_];

function draw() {
  if (!dirty) requestAnimationFrame(paint);
  dirty = true;
}

const inkOf = hue => {
  pen.fillStyle = hue;
  const [red, green, blue] = pen.fillStyle.match(/\w\w/g).map(part => parseInt(part, 16));
  return (255 << 24 | blue << 16 | green << 8 | red) >>> 0;
};

function paint(time) {
  dirty = false;
  if (glide) {
    const share = Math.min(Math.max((time - glide.start) / GLIDE, 0), 1), eased = share * share * (3 - 2 * share);
    for (let i = 0; i < now.length; i++) now[i] = glide.from[i] + eased * (glide.to[i] - glide.from[i]);
    if (share === 1) glide = null;
    else draw();
  }
  const ratio = devicePixelRatio, scale = side(), half = Math.round(Math.min(Math.max(1.1 * Math.sqrt(zoom), 1), 4) * ratio);
  const near = [], tile = Math.min(24 * zoom ** 0.7, 90) * ratio, {width, height} = canvas;
  if (image?.width !== width || image.height !== height) {
    image = new ImageData(width, height);
    dots = new Uint32Array(image.data.buffer);
  }
  dots.fill(0);
  for (let i = 0; i < digests.length; i++) {  // pixel by pixel: several times as fast as rectangles
    const x = Math.round(now[2 * i] * scale + left), y = Math.round(now[2 * i + 1] * scale + top_);
    if (x < -tile || y < -tile || x > width + tile || y > height + tile) continue;
    if (near.length <= TILES) near.push([i, x, y]);
    const from = Math.max(x - half, 0), to = Math.min(x + half + 1, width), ink = inks[codes[i]];
    for (let row = Math.max(y - half, 0); row <= Math.min(y + half, height - 1); row++) {
      for (let place = row * width + from; place < row * width + to; place++) dots[place] = ink;
    }
  }
  pen.putImageData(image, 0, 0);
  if (near.length <= TILES && !glide) for (const [i, x, y] of near) paintTile(digests[i], x, y, tile, hues[codes[i]]);
  const asked = digests.indexOf(document.querySelector('#search .search').dataset.item);
  if (asked >= 0) ring(...toScreen(asked), 11 * ratio);
  if (lasso.length) outline();
}

function paintTile(digest, x, y, tile, hue) {
  let image = pictures.get(digest);
  if (!image) {
    pictures.set(digest, image = new Image());
    image.onload = draw;
    image.src = `thumbs/${digest}`;
  }
  if (!image.naturalWidth) return;
  const least = Math.min(image.naturalWidth, image.naturalHeight);
  pen.fillStyle = hue;
  pen.fillRect(x - tile / 2 - 2, y - tile / 2 - 2, tile + 4, tile + 4);
  pen.drawImage(image, (image.naturalWidth - least) / 2, (image.naturalHeight - least) / 2, least, least, x - tile / 2, y - tile / 2, tile, tile);
}

function ring(x, y, radius) {
  pen.lineWidth = 3 * devicePixelRatio;
  pen.strokeStyle = getComputedStyle(element).getPropertyValue('--ink') || 'black';
  pen.beginPath();
  pen.arc(x, y, radius, 0, 7);
  pen.stroke();
}

function outline() {
  pen.lineWidth = 2 * devicePixelRatio;
  pen.strokeStyle = getComputedStyle(element).getPropertyValue('--ink') || 'black';
  pen.beginPath();
  for (const point of lasso) pen.lineTo(...point);
  pen.closePath();
  pen.stroke();
}

// Moving about, looking, choosing

function zoomBy(factor, x = canvas.width / 2, y = canvas.height / 2) {
  const next = Math.min(Math.max(zoom * factor, 0.5), 80), real = next / zoom;
  [zoom, left, top_] = [next, x - (x - left) * real, y - (y - top_) * real];
  seen.hidden = true;
  draw();
}

// As large as all points of the model fit, with a margin.
function showAll() {
  const of = places[space] || [0, 0, 1, 1], ends = [1, 0, 1, 0];
  for (let i = 0; i < of.length; i += 2) {
    for (const axis of [0, 1]) {
      ends[2 * axis] = Math.min(ends[2 * axis], of[i + axis]);
      ends[2 * axis + 1] = Math.max(ends[2 * axis + 1], of[i + axis]);
    }
  }
  const [x1, x2, y1, y2] = ends, room = 0.92, least = 1e-3;
  zoom = room * Math.min(canvas.width / Math.max(x2 - x1, least), canvas.height / Math.max(y2 - y1, least)) / Math.min(canvas.width, canvas.height);
  [left, top_] = [(canvas.width - (x1 + x2) * side()) / 2, (canvas.height - (y1 + y2) * side()) / 2];
  draw();
}

const at = event => [event.offsetX * devicePixelRatio, event.offsetY * devicePixelRatio];

function look([x, y]) {
  let best = -1, least = (REACH * devicePixelRatio) ** 2;
  for (let i = 0; i < digests.length; i++) {
    const [px, py] = toScreen(i), far = (px - x) ** 2 + (py - y) ** 2;
    if (far < least) [best, least] = [i, far];
  }
  seen.hidden = best < 0;
  if (best < 0) return;
  const [px, py] = toScreen(best).map(part => part / devicePixelRatio), share = agreement[best];
  seen.href = `?id=${digests[best]}`;
  seen.firstChild.src = `thumbs/${digests[best]}`;
  seen.lastChild.textContent = share <= 100 ? `${share} % in common. Search` : 'Search';
  seen.style.left = `${Math.min(Math.max(px - 66, 0), canvas.clientWidth - 132)}px`;
  seen.style.top = `${py > 190 ? py - 178 : py + 12}px`;
}

// The photos within what was drawn around them.
function choose() {
  const inside = (x, y) => lasso.reduce((odd, [ax, ay], i) => {
    const [bx, by] = lasso.at(i - 1);
    return (ay > y) !== (by > y) && x < (bx - ax) * (y - ay) / (by - ay) + ax ? !odd : odd;
  }, false);
  const found = [...digests.keys()].filter(i => inside(...toScreen(i)));
  const known = found.map(i => agreement[i]).filter(share => share <= 100), mean = known.reduce((sum, share) => sum + share, 0) / known.length;
  const line = document.createElement('p'), list = document.createElement('ul');
  line.textContent = `${found.length} photos${known.length ? `, on which the two have ${mean.toFixed(0)} % in common` : ''}${found.length > MOST_CHOSEN ? `; the first ${MOST_CHOSEN}` : ''}.`;
  list.append(...found.slice(0, MOST_CHOSEN).map((i, place) => {
    const item = document.createElement('li');
    item.innerHTML = `<a href="?id=${digests[i]}" aria-label="Search with photo ${place + 1} of these"><img src="thumbs/${digests[i]}" alt="" loading="lazy"></a>`;
    return item;
  }));
  chosen.replaceChildren(...(found.length ? [line, list] : []));
}

const pointers = new Map();
let lasso = [], moved = false;
const selecting = () => element.querySelector('.select').getAttribute('aria-pressed') === 'true';
canvas.addEventListener('pointerdown', event => {
  canvas.setPointerCapture(event.pointerId);
  pointers.set(event.pointerId, at(event));
  moved = false;
  lasso = selecting() ? [at(event)] : [];
});
canvas.addEventListener('pointermove', event => {
  const before = pointers.get(event.pointerId), point = at(event);
  if (!before) { look(point); return; }
  moved ||= Math.hypot(point[0] - before[0], point[1] - before[1]) > 3;
  if (!moved) return;
  seen.hidden = true;
  const other = [...pointers].find(([id]) => id !== event.pointerId)?.[1];
  if (other) zoomBy(Math.hypot(point[0] - other[0], point[1] - other[1]) / Math.hypot(before[0] - other[0], before[1] - other[1]), ...other);
  else if (lasso.length) lasso.push(point);
  else [left, top_] = [left + point[0] - before[0], top_ + point[1] - before[1]];
  pointers.set(event.pointerId, point);
  draw();
});
for (const end of ['pointerup', 'pointercancel']) {
  canvas.addEventListener(end, event => {
    pointers.delete(event.pointerId);
    if (lasso.length > 2) choose();
    else if (!moved) {
      const same = !seen.hidden && event.pointerType === 'mouse';
      look(at(event));
      if (same && !seen.hidden) seen.click();
    }
    lasso = [];
    draw();
  });
}
canvas.addEventListener('wheel', event => { event.preventDefault(); zoomBy(Math.exp(-event.deltaY / 400), ...at(event)); }, {passive: false});
canvas.addEventListener('keydown', event => {
  const step = {ArrowLeft: [60, 0], ArrowRight: [-60, 0], ArrowUp: [0, 60], ArrowDown: [0, -60]}[event.key];
  if (step) { left += step[0]; top_ += step[1]; draw(); }
  else if (event.key === '+' || event.key === '-') zoomBy(event.key === '+' ? 1.4 : 1 / 1.4);
  else return;
  event.preventDefault();
});
element.querySelector('.in').addEventListener('click', () => zoomBy(1.6));
element.querySelector('.out').addEventListener('click', () => zoomBy(1 / 1.6));
element.querySelector('.all').addEventListener('click', showAll);
element.querySelector('.select').addEventListener('click', event => event.target.setAttribute('aria-pressed', !selecting()));
for (const button of element.querySelectorAll('[data-space]')) {
  button.addEventListener('click', () => {
    for (const each of element.querySelectorAll('[data-space]')) each.setAttribute('aria-pressed', each === button);
    glideTo(button.dataset.space);
  });
}
by.addEventListener('change', () => { picked = true; colour(); });
new ResizeObserver(() => {
  if (!canvas.clientWidth) return;
  [canvas.width, canvas.height] = [canvas.clientWidth * devicePixelRatio, canvas.clientHeight * devicePixelRatio];
  showAll();
}).observe(canvas);

whenSeen(load);
