// Shows what the server tells, lets pictures glide to their new places, and sends a folder's photos.

const $ = selector => document.querySelector(selector);
const PHOTO = /\.(jpe?g|jpe|png|webp|gif|bmp|tiff?|avif|hei[cf])$/i, AT_ONCE = 4;
let source;

// What happens

function watch() {
  source?.close();
  source = new EventSource('/learn/events');
  source.onopen = () => say('.end', '');
  for (const part of ['said', 'charts', 'strips']) source.addEventListener(part, event => put(part, JSON.parse(event.data)));
  source.addEventListener('end', event => finish(JSON.parse(event.data)));
  // The browser tries again by itself.
  source.onerror = () => say('.end', 'The demo has stopped. Start `retrieval demo` again: it goes on where it was.', true);
}

function say(place, text, failed = false) {
  $(place).textContent = text;
  $(place).classList.toggle('error', failed);
}

async function finish({error, live}) {
  source.close();
  if (error) { say('.end', error, true); return; }
  const run = source;
  say('.end', 'It has learnt. The search opens in a moment.');
  while (!await fetch('/learn/ready').then(answer => answer.ok && answer.json()).catch(() => false)) {
    await new Promise(done => setTimeout(done, 500));
  }
  if (run !== source || sending()) return;  // another folder learns by now, or will
  if (live) location.assign('/');
  else $('.end').innerHTML = 'It has learnt. <a href="/">Search</a>';
}

const sending = () => $('.own input').disabled;

function put(part, html) {
  const box = $(`.${part}`), before = places(box);
  box.innerHTML = html;
  box.hidden = false;
  if (matchMedia('(prefers-reduced-motion: reduce)').matches) return;
  for (const [key, {item, left, top}] of places(box)) {
    const old = before.get(key), how = {duration: 700, easing: 'ease-in-out'};
    if (!old) { if (before.size) item.animate([{opacity: 0}, {opacity: 1}], how); }
    else if (old.left !== left || old.top !== top) item.animate([{transform: `translate(${old.left - left}px, ${old.top - top}px)`}, {transform: 'none'}], how);
  }
}

// Where each picture of each list is.
function places(box) {
  return new Map([...box.querySelectorAll('ol')].flatMap((list, i) => [...list.children].map(item => {
    return [`${i}:${item.dataset.place}`, {item, left: item.offsetLeft, top: item.offsetTop}];
  })));
}

// One's own photos

async function send(files) {
  const input = $('.own input'), there = files.filter(file => PHOTO.test(file.name)), photos = there.slice(0, Number(input.dataset.most));
  if (sending()) return;
  if (!photos.length) { say('.sent', 'There is no photo in this folder.', true); return; }
  input.disabled = true;
  try {
    const number = await ask('POST', 'photos'), more = there.length - photos.length;
    let next = 0, refused = 0;
    const sender = async () => {
      while (next < photos.length) {
        const place = next++, suffix = photos[place].name.match(PHOTO)[0].toLowerCase();
        await ask('PUT', `photos/${number}/${place}?suffix=${suffix}`, photos[place]).catch(error => { if (error.fatal) throw error; refused++; });
        say('.sent', `${next} of ${photos.length} photos sent${refused ? `, ${refused} of them cannot be read` : ''}${more ? `; ${more} more are left out` : ''}.`);
      }
    };
    await Promise.all(Array.from({length: AT_ONCE}, sender));
    await ask('POST', `start/${number}`);
    for (const part of ['charts', 'strips']) Object.assign($(`.${part}`), {hidden: true, innerHTML: ''});
    watch();
    scrollTo({top: 0});
  } catch (error) {
    say('.sent', error.message, true);
  }
  input.disabled = false;
}

async function ask(method, path, body) {
  let answer;
  for (let tries = 0; tries < 20 && !(answer = await fetch(`/learn/${path}`, {method, body}).catch(() => null)); tries++) {
    await new Promise(done => setTimeout(done, 500));  // while the server opens a finished index
  }
  if (answer?.ok) return answer.json();
  const said = await answer?.json().catch(() => null);
  throw Object.assign(new Error(said?.detail ?? "Can't reach the demo. Start it again."), {fatal: !answer || answer.status > 500});
}

// All files below what was dropped.
async function walk(entry) {
  if (entry.isFile) return [await new Promise((done, failed) => entry.file(done, failed))];
  const reader = entry.createReader(), inside = [];
  for (let some; (some = await new Promise((done, failed) => reader.readEntries(done, failed))).length;) inside.push(...some);
  return (await Promise.all(inside.map(walk))).flat();
}

$('.own input').addEventListener('change', event => {
  const files = [...event.target.files];
  event.target.value = '';
  send(files);
});
for (const kind of ['dragover', 'dragleave', 'drop']) {
  document.addEventListener(kind, event => {
    event.preventDefault();
    $('.own').classList.toggle('over', kind === 'dragover');
  });
}
document.addEventListener('drop', async event => {
  const entries = [...event.dataTransfer.items].map(item => item.webkitGetAsEntry()).filter(Boolean);
  send((await Promise.all(entries.map(walk))).flat());
});

watch();
