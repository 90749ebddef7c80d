// The search page: keeps what is asked, asks for it, shows the answer, and keeps the address bar in step.

const page = element.querySelector('.search');
const $ = selector => page.querySelector(selector);
const $$ = selector => [...page.querySelectorAll(selector)];
const WHOLE = '0,0,1,1', STEP = 12;
const BLANK = `<ol class="cards blank" aria-hidden="true">${'<li></li>'.repeat(STEP)}</ol>`;
const files = new Map();  // photos by their digest: to send one again that the server has forgotten
let query = null;         // {item} or {sent, file} or {address} or {text}
let serial = 0, last = {};

const cropper = makeCropper($('.picture'), live => live ? followCrop() : search({replace: true}));
const showLarge = makeLargeView($('.large'), describe, id => searchItem(id), place => refocus(place));
openEntries(page, searchFile, searchAddress, searchWords, text => showComplaint(`<p class="note error">${text}</p>`));

// What is asked

const isSingle = () => $('.one').getAttribute('aria-pressed') === 'true';
const modes = () => $$('.mode-of').slice(0, isSingle() ? 1 : 2).map(select => select.value);

function readRequest() {
  return {
    ...(query.text ? {text: query.text} : query.item === undefined ? {sent: query.sent, address: query.sent ? '' : query.address} : {item: query.item}),
    ...cropper.view, modes: modes(), k: Number($('.k').value), ...readFilters(),
  };
}

function readFilters() {
  if (!$('.prefix')) return {};
  const chosen = $$('.column-value').filter(select => select.value);
  return {
    prefix: $('.prefix').value, cut: Number($('input.cut').value) / 100,
    columns: Object.fromEntries(chosen.map(select => [select.dataset.column, select.value])),
  };
}

function searchItem(item, view, how) {
  // What was clicked on is shown at once; what an address names may not be there.
  const seen = Number.isInteger(item) && $(`img[src="thumbs/${item}"]`)?.naturalWidth;
  return start({item}, answer => [seen ? `thumbs/${item}` : answer.then(found => found.error ? '' : `thumbs/${item}`)], view, how);
}

function searchFile(file, sent) {
  return start({file, sent}, answer => [URL.createObjectURL(file), () => preview(answer)]);
}

function searchAddress(address) { return start({address}, answer => [() => preview(answer)]); }

// Words have no picture: the style sheet hides its place.
function searchWords(text, how) { return start({text}, () => [''], undefined, how); }

// What the browser cannot draw by itself, or does not have, the server shows. After an error nothing is shown.
const preview = async answer => {
  const {sent} = await answer;
  return sent ? server.picture(sent) : '';
};

function start(asked, pictures, view, how) {
  if (!how?.replace) scrollTo({top: 0});
  query = asked;
  page.classList.toggle('worded', Boolean(asked.text));
  cropper.look(view);
  const done = search(how);
  cropper.show(pictures(asked.answer));
  return done;
}

// Asking

// Gradio's answer is undefined where there is none.
async function call(fields, file) {
  const answer = await server.search(file ? {binary: true, data: {request: JSON.stringify(fields), photo: file}} : fields);
  const orLarge = file ? `, or this file is too large (${(file.size / 1e6).toFixed(1)} MB)` : '';
  return answer ?? {error: `<p class="note error">Can't reach the server${orLarge}. Try again.</p>`};
}

async function ask(asked, fields) {
  let answer = await call(fields, asked.sent ? null : asked.file);
  if (answer.forgotten) answer = await call(fields, asked.file || files.get(asked.sent));
  if (answer.forgotten) answer = {error: '<p class="note error">This photo is not known any more. Choose it again.</p>'};
  if (answer.sent) {
    asked.sent = answer.sent;
    if (asked.file) files.set(answer.sent, asked.file);
  }
  return answer;
}

// The first column comes first; the second follows. An answer that a later request has overtaken is dropped.
async function search({replace = false} = {}) {
  const mine = ++serial, asked = query, fields = readRequest(), focus = focused();
  page.dataset.state = 'found';
  page.classList.add('asking');
  if (!$('.list').firstChild) showBlank();
  sayFilters();
  showComplaint('');
  page.setAttribute('aria-busy', 'true');
  const both = fields.modes.length === 2;
  asked.answer = ask(asked, {...fields, soon: both});
  let answer = await asked.answer;
  if (mine !== serial) return;
  show(answer, focus);
  writeAddress(replace);
  if (both && !answer.error) {
    answer = await ask(asked, readRequest());
    if (mine !== serial) return;
    show(answer, document.activeElement === document.body ? focus : focused());
  }
  page.removeAttribute('aria-busy');
}

// While the box is dragged only the first column follows, as fast as answers come.
let following = false, again = false;
async function followCrop() {
  if (following) { again = true; return; }
  following = true;
  const mine = ++serial, fields = readRequest();
  page.classList.add('following');
  const answer = await ask(query, {...fields, modes: fields.modes.slice(0, 1)});
  if (mine === serial && !answer.error) showColumn(0, answer.columns[0]);
  following = false;
  if (again) { again = false; if (mine === serial) followCrop(); }
}

// Showing

function show(answer, focus) {
  page.classList.remove('following', 'asking');
  if (answer.error) { clear('failed'); showComplaint(answer.error); return; }
  last = answer;
  chooseCount(answer.k);
  answer.columns.forEach((html, i) => showColumn(i, html));
  showNumbers(answer.numbers);
  $('.caption').textContent = $('.caption').title = answer.name;
  for (const button of $$('.save')) button.disabled = false;
  $('.more').hidden = !answer.more;
  $('.spoken').textContent = answer.spoken;
  nameColumns();
  if (focus) refocus(focus);
}

// What is known of an image, with its place in each column.
async function describe(id) {
  const places = $$('.column').slice(0, modes().length).map((column, i) => {
    const card = column.querySelector(`.card[data-id="${id}"]`), name = $$('.mode-of')[i].selectedOptions[0].text;
    const at = card ? `rank ${card.querySelector('.rank').textContent}, similarity ${card.querySelector('.score').textContent}` : 'not among these results';
    return `<div><dt>${name}</dt><dd>${at}</dd></div>`;
  });
  return `${await server.details(id) ?? ''}<dl>${places.join('')}</dl>`;
}

// On a phone the figures leave their place to the pictures, until they are asked for.
let unfolded = !matchMedia('(max-width: 640px)').matches;
function showNumbers(html) {
  $('.numbers').innerHTML = html;
  const figures = $('.timings');
  if (!figures) return;
  figures.open = unfolded;
  figures.addEventListener('toggle', () => { unfolded = figures.open; });
}

function nameColumns() {
  page.classList.toggle('single', isSingle());
  $$('.column').forEach((column, i) => { column.dataset.mode = modes()[i] || ''; });
}

// Cells where results will be, so that nothing jumps when they come.
function showBlank() {
  nameColumns();
  $$('.list').forEach((_, i) => showColumn(i, BLANK));
}

function showColumn(i, html) { $$('.list')[i].innerHTML = html; }

function showComplaint(html) { $('.complaint').innerHTML = html; }

// Nothing is shown but the ways in.
function clear(state) {
  page.dataset.state = state;
  page.removeAttribute('aria-busy');
  page.classList.remove('asking');
  for (const button of $$('.save, .copy')) button.disabled = true;
  $('.more').hidden = true;
  $('.caption').textContent = '';
  showColumn(0, '');
  showColumn(1, '');
  showNumbers('');
  showComplaint('');
}

// Answers replace cards: the focus stays on the same one, or goes to the first.
function focused() {
  const card = document.activeElement?.closest?.('.card');
  return card && page.contains(card)
    ? {column: card.closest('.column').dataset.column, id: card.dataset.id} : null;
}

function refocus({column, id}) {
  const list = $$('.list')[column];
  (list.querySelector(`.card[data-id="${id}"] .hit`) || list.querySelector('.hit'))?.focus({preventScroll: true});
}

// The address bar: a search with an image of the gallery can be opened again, and sent to others.

function writeAddress(replace) {
  const url = new URL(location), fields = readRequest(), {searchParams} = url;
  for (const name of [...searchParams.keys()]) if (!name.startsWith('__')) searchParams.delete(name);
  if (fields.item !== undefined || fields.text) {
    if (fields.text) searchParams.set('text', fields.text);
    else searchParams.set('id', fields.item);
    searchParams.set('mode', fields.modes.join(','));
    searchParams.set('k', fields.k);
    if (fields.turn) searchParams.set('turn', fields.turn);
    if (fields.box.join() !== WHOLE) searchParams.set('box', fields.box.map(edge => edge.toFixed(3)).join());
    if (fields.prefix) searchParams.set('prefix', fields.prefix);
    if (fields.cut) searchParams.set('cut', fields.cut);
    for (const [name, value] of Object.entries(fields.columns || {})) searchParams.set(`column.${name}`, value);
  }
  url.search = String(searchParams).replaceAll('%2C', ',');
  const same = url.href === location.href;
  history[replace || same ? 'replaceState' : 'pushState']({sent: query.sent}, '', url);
  $('.copy').disabled = fields.item === undefined && !fields.text;
  $('.copy').title = $('.copy').disabled ? 'Only a search with an image of the gallery has an address' : 'Copy the address of this search';
}

function readAddress() {
  const asked = new URLSearchParams(location.search), id = asked.get('id');
  const sent = history.state?.sent, text = asked.get('text');
  if (id === null && !text && !(sent && files.has(sent))) { startAgain(); return; }
  const [first, second] = (asked.get('mode') || '').split(',');
  if (first) {
    choose($$('.mode-of')[0], first);
    choose($$('.mode-of')[1], second);
    press(!second);
  }
  if (/^\d+$/.test(asked.get('k'))) chooseCount(Number(asked.get('k')));
  setFilters(asked);
  if (text) { $('.address').value = text; searchWords(text, {replace: true}); return; }
  if (id === null) { searchFile(files.get(sent), sent); return; }
  const box = asked.get('box')?.split(',').map(Number);
  searchItem(/^\d+$/.test(id) ? Number(id) : id, {turn: Number(asked.get('turn')) || 0, box: box || [0, 0, 1, 1]}, {replace: true});
}

function startAgain() {
  serial++;
  query = null;
  setFilters(new URLSearchParams());
  clear('empty');
}

const choose = (select, value) => {
  if ([...select.options].some(option => option.value === value)) select.value = value;
};

addEventListener('popstate', readAddress);

// Controls

function press(single) {
  $('.one').setAttribute('aria-pressed', single);
  $('.two').setAttribute('aria-pressed', !single);
}

// However many results there are, their number is one of the choices.
function chooseCount(k) {
  const select = $('.k'), options = [...select.options];
  if (!options.some(option => Number(option.value) === k)) select.add(new Option(k), options.find(option => option.value > k));
  select.value = k;
}

function sayCut() { $('.cut-value').textContent = $('input.cut').value === '0' ? 'any' : `${$('input.cut').value}% of the best`; }

function setFilters(asked) {
  if (!$('.prefix')) return;
  $('.prefix').value = asked.get('prefix') || '';
  $('input.cut').value = 100 * (asked.get('cut') || 0);
  for (const select of $$('.column-value')) choose(select, asked.get(`column.${select.dataset.column}`) || '');
  sayCut();
}

// Their panel is folded: how many are set is told on its button.
function sayFilters() {
  const {prefix, cut, columns = {}} = readFilters();
  const count = Boolean(prefix) + Boolean(cut) + Object.keys(columns).length;
  if (!$('.prefix')) return;
  $('.filters summary').textContent = count ? `Filters: ${count}` : 'Filters';
  $('.filters').classList.toggle('on', count > 0);
  $('.reset').hidden = !count;
}

const researched = () => query && search({replace: true});
$('.one').addEventListener('click', () => { press(true); researched(); });
$('.two').addEventListener('click', () => { press(false); researched(); });
$('.more').addEventListener('click', () => { chooseCount(Number($('.k').value) + STEP); researched(); });
for (const select of $$('.k, .mode-of, .column-value')) select.addEventListener('change', researched);
if ($('.prefix')) {
  let typing;
  $('input.cut').addEventListener('input', sayCut);
  $('input.cut').addEventListener('change', researched);
  $('.prefix').addEventListener('input', () => { clearTimeout(typing); typing = setTimeout(researched, 250); });
  $('.reset').addEventListener('click', () => {
    setFilters(new URLSearchParams());
    $('.filters summary').focus();
    researched();
  });
}
$('.clear').addEventListener('click', () => {
  history.pushState(null, '', location.pathname);
  startAgain();
  $('.file').focus();
});

$('.copy').addEventListener('click', async () => {
  if (!navigator.clipboard) { prompt('The address of this search', location.href); return; }  // not over plain http
  await navigator.clipboard.writeText(location.href);
  $('.copy').textContent = 'Copied';
  setTimeout(() => { $('.copy').textContent = 'Link'; }, 1500);
});

for (const button of $$('.save')) {
  button.addEventListener('click', () => saveResults($$('.list').slice(0, modes().length), modes(), last.name, button.dataset.format));
}

// Panels close when attention turns elsewhere.
const fold = except => $$('.bar-of-tools details[open]').forEach(each => { each.open = each.contains(except); });
page.addEventListener('click', event => fold(event.target));
$('.bar-of-tools').addEventListener('keydown', event => {
  if (event.key === 'Escape') { event.target.closest('details')?.querySelector('summary').focus(); fold(null); }
});

// Results: a click searches on, the corner opens the large view.

page.addEventListener('click', event => {
  const card = cardOf(event.target), example = event.target.closest('.example');
  if (example) searchItem(Number(example.dataset.id));
  else if (card && event.target.closest('.open')) showLarge(card);
  else if (card && event.target.closest('.hit')) searchItem(Number(card.dataset.id));
});

walkResults(page, showLarge);
readAddress();
