// The search page: keeps what is asked, asks for it, and shows the answer.

const page = element.querySelector('.search');
const $ = selector => page.querySelector(selector);
const $$ = selector => [...page.querySelectorAll(selector)];
const WHOLE = '0,0,1,1', STEP = 12;
const BLANK = `<ol class="cards blank" aria-hidden="true">${'<li></li>'.repeat(STEP)}</ol>`;
const examples = {like: [], unlike: []};  // digests of results to find more of, and less of
const files = new Map();  // the last photos by their digest: to send one again that the server has forgotten
let query = null;         // {item}, a digest, or {sent, file} or {address} or {text}, with its name and what shows its picture
let shown = null;         // what the results on show are of, as `wish` says it
let serial = 0, last = {};

const cropper = makeCropper($('.picture'), live => live ? followCrop() : search({replace: true}));
const drawRungs = makeLadder($('.columns'), $('.rungs'));
const explain = makeHeat($('.large'), hit => server.why({...readRequest(), ...shown.view, hit}));
const showLarge = makeLargeView($('.large'), $('.frame canvas'), describe, item => searchItem(item), place => refocus(place), (kind, item) => vote(kind, item), explain);
openEntries(page, searchFile, searchAddress, searchWords, (text, kind = 'note error') => showComplaint(`<p class="${kind}">${text}</p>`));

// What is asked

const view = () => $('.switch [aria-pressed="true"]').className;
const isSingle = () => view() === 'one';
const modes = () => $$('.mode-of').slice(0, isSingle() ? 1 : 2).map(select => select.value);

function readRequest() {
  return {
    ...(query.text ? {text: query.text} : query.item === undefined ? {sent: query.sent, address: query.sent ? '' : query.address} : {item: query.item}),
    ...cropper.view, ...(query.text ? {} : examples), modes: modes(), k: Number($('.k').value), ...readFilters(),
  };
}

// What is asked, but for the filters, to be asked again or taken back to.
const wish = () => ({query, view: cropper.view, single: isSingle(), modes: $$('.mode-of').map(select => select.value), ...examples});

function takeBack({single, modes, like, unlike}) {
  if (isSingle() !== single) press(single ? 'one' : 'two');
  $$('.mode-of').forEach((select, i) => { select.value = modes[i]; });
  Object.assign(examples, {like, unlike});
  sayFilters();
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
  const seen = $(`img[src="thumbs/${CSS.escape(item)}"]`), drawn = seen?.naturalWidth, name = seen?.closest('[data-name]')?.dataset.name;
  return start({item, name}, answer => [drawn ? `thumbs/${item}` : answer.then(found => found.error ? '' : `thumbs/${item}`)], view, how);
}

function searchFile(file) {
  return start({file: shrink(file), name: file.name}, answer => [file, () => preview(answer)]);
}

function searchAddress(address) { return start({address, name: address}, answer => [() => preview(answer)]); }

// A photo that was sent before, which the server or this page still has.
function searchSent(sent, view, how) {
  const file = files.get(sent);
  return start({sent, file, name: file?.name}, answer => [...(file ? [file] : []), () => preview(answer)], view, how);
}

// Words have no picture: the style sheet hides its place.
function searchWords(text, how) { return start({text, name: text}, () => [''], undefined, how); }

// What the browser cannot draw by itself, or does not have, the server shows. After an error nothing is shown.
const preview = async answer => {
  const {sent} = await answer;
  return sent ? server.picture(sent) : '';
};

function start(asked, pictures, view, how) {
  if (!how?.replace) scrollTo({top: 0});
  if (!how?.keep) Object.assign(examples, {like: [], unlike: []});
  query = Object.assign(asked, {pictures});
  cropper.look(view);
  sayQuery(asked.name);
  const done = search(how);
  cropper.show(pictures(asked.answer));
  return done;
}

function sayQuery(name = '') {
  page.classList.toggle('worded', Boolean(query.text));
  $('.caption').textContent = $('.caption').title = name;
}

// Asking

// Gradio's answer is undefined where there is none.
async function call(fields, file) {
  const answer = await server.search(file ? {binary: true, data: {request: JSON.stringify(fields), photo: file}} : fields);
  const orLarge = file ? `, or this file is too large (${(file.size / 1e6).toFixed(1)} MB)` : '';
  return answer ?? {error: `<p class="note error">Can't reach the server${orLarge}. Try again.</p>`};
}

async function ask(asked, fields) {
  const file = await asked.file;
  let answer = await call(fields, asked.sent ? null : file);
  if (answer.forgotten && (file || asked.address)) answer = await call({...fields, sent: '', address: asked.address}, file);
  if (answer.forgotten) answer = {error: '<p class="note error">This photo is not known any more. Choose it again.</p>'};
  if (answer.item) asked.item = answer.item;  // a link may have named it by an id, which is another's once the index changes
  if (answer.sent) {
    asked.sent = answer.sent;
    if (file) files.set(answer.sent, file);
    if (files.size > 8) files.delete(files.keys().next().value);
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
  if (!answer.error) writeAddress(replace);
  if (both && !answer.error) {
    answer = await ask(asked, readRequest());
    if (mine !== serial) return;
    show(answer, document.activeElement === document.body ? focus : focused());
  }
  page.removeAttribute('aria-busy');
}

// While the box is dragged only the first column follows, as fast as answers come, if the student alone is asked: the
// others may cost, and the end of the drag searches anyway.
let following = false, again = false;
async function followCrop() {
  if (!['student', 'asymmetric'].includes(modes()[0])) return;
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
  if (answer.error) { fail(answer.error); return; }
  last = answer;
  page.dataset.item = answer.item;  // for the map
  shown = wish();
  chooseCount(answer.k);
  answer.columns.forEach((html, i) => showColumn(i, html));
  showNumbers(answer.numbers);
  sayQuery(answer.name);
  for (const button of $$('.save, .copy')) button.disabled = false;
  $('.more').hidden = !answer.more;
  $('.spoken').textContent = answer.spoken;
  document.title = `${answer.name} · retrieval`;
  nameColumns();
  if (focus) refocus(focus);
}

// An error takes nothing away: what was on show stays, and a bar says what happened.
function fail(html) {
  const wanted = wish();
  if (!shown) clear('failed');
  else {
    takeBack(shown);
    if (query !== shown.query) {
      query = shown.query;
      cropper.look(shown.view);
      cropper.show(query.pictures(Promise.resolve(last)));
      sayQuery(last.name);
    }
  }
  if ($('#second .waiting')) showColumn(1, '');
  showComplaint(html, () => {
    takeBack(wanted);
    start(wanted.query, wanted.query.pictures, wanted.view, {keep: true});
  });
}

// What is known of an image, with its place in each column.
async function describe(item) {
  const places = $$('.column').slice(0, modes().length).map((column, i) => {
    const card = column.querySelector(`.card[data-digest="${item}"]`), name = $$('.mode-of')[i].selectedOptions[0].text;
    const at = card ? `rank ${card.querySelector('.rank').textContent}, similarity ${card.querySelector('.score').textContent}` : 'not among these results';
    return `<div><dt>${name}</dt><dd>${at}</dd></div>`;
  });
  return `${await server.details(item) ?? ''}<dl>${places.join('')}</dl>`;
}

// On a phone the figures leave their place to the pictures, until they are asked for.
function showNumbers(html) {
  $('.numbers').innerHTML = html;
  $('.chip')?.setAttribute('aria-expanded', page.classList.contains('unfolded'));
}

function nameColumns() {
  page.classList.toggle('single', isSingle());
  page.classList.toggle('runged', view() === 'ladder');
  $$('.column').forEach((column, i) => { column.dataset.mode = modes()[i] || ''; });
}

// Cells where results will be, so that nothing jumps when they come.
function showBlank() {
  nameColumns();
  $$('.list').forEach((_, i) => showColumn(i, BLANK));
}

function showColumn(i, html) {
  $$('.list')[i].innerHTML = html;
  drawRungs();
}

function showComplaint(html, again) {
  $('.complaint').innerHTML = html;
  if (!again) return;
  const button = document.createElement('button');
  Object.assign(button, {type: 'button', className: 'button again', textContent: 'Try again'});
  button.addEventListener('click', again);
  $('.complaint').append(button);
}

// Nothing is shown but the ways in.
function clear(state) {
  shown = null;
  delete page.dataset.item;
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
  const card = list.querySelector(`.card[data-id="${id}"]`), seen = card?.classList.contains('folded') ? card.dataset.under : id;
  (list.querySelector(`.card[data-id="${seen}"] .hit`) || list.querySelector('.hit'))?.focus({preventScroll: true});
}
