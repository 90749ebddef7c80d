// The controls of the search page: views, filters, panels, what a click does.

function startAgain() {
  serial++;
  query = null;
  written = '';
  setFilters(new URLSearchParams());
  clear('empty');
}

const choose = (select, value) => {
  if ([...select.options].some(option => option.value === value)) select.value = value;
};

function press(name) {
  for (const button of $$('.switch button')) button.setAttribute('aria-pressed', button.className === name);
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

// More like this, less like this: what was voted for is a chip, which takes it off.
function vote(kind, item) {
  if (query?.text) return;  // words are drawn to no photo
  const other = kind === 'like' ? 'unlike' : 'like';
  examples[kind] = [...examples[kind].filter(each => each !== item), item];
  examples[other] = examples[other].filter(each => each !== item);
  search();
}

function exampleChip(kind, item) {
  const chip = document.createElement('button'), said = kind === 'like' ? 'More like this' : 'Less like this';
  Object.assign(chip, {type: 'button', className: `button example-of ${kind}`, innerHTML: `<img src="thumbs/${item}" alt=""><span>${said} ✕</span>`, ariaLabel: `Take off: ${said}`});
  chip.addEventListener('click', () => {
    examples[kind] = examples[kind].filter(each => each !== item);
    $('.bar-of-tools button').focus();
    search();
  });
  return chip;
}

// Their panel is folded: how many are set is told on its button, and each is a chip that takes it off.
function sayFilters() {
  const set = !$('.prefix') ? [] : [$('.prefix'), $('input.cut'), ...$$('.column-value')].filter(each => each.value && !(each.className === 'cut' && each.value === '0'));
  const count = set.length;
  $('.chips').replaceChildren(...Object.keys(examples).flatMap(kind => examples[kind].map(item => exampleChip(kind, item))), ...set.map(each => {
    const chip = document.createElement('button');
    const said = {prefix: `Name: ${each.value}…`, cut: `At least ${each.value}% of the best`}[each.className] || `${each.dataset.column}: ${each.value}`;
    Object.assign(chip, {type: 'button', className: 'button', textContent: `${said} ✕`, ariaLabel: `Take off ${said}`});
    chip.addEventListener('click', () => {
      each.value = each.className === 'cut' ? 0 : '';
      sayCut();
      $('.filters summary').focus();
      researched();
    });
    return chip;
  }));
  if (!$('.prefix')) return;
  $('.filters summary').textContent = count ? `Filters: ${count}` : 'Filters';
  $('.filters').classList.toggle('on', count > 0);
  $('.reset').hidden = !count;
}

const researched = () => query && search({replace: true});
for (const button of $$('.switch button')) {
  button.addEventListener('click', () => {
    const same = !isSingle() && button.className !== 'one';  // both columns are there already
    press(button.className);
    if (!same) return researched();
    nameColumns();
    drawRungs();
    if (shown) writeAddress(true);
  });
}
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

// Panels close when attention turns elsewhere. On a phone some controls wait behind a button.
const fold = except => {
  $$('.bar-of-tools details[open]').forEach(each => { each.open = each.contains(except); });
  openExtras($('.extras').contains(except) || $('.menu').contains(except) && !$('.extras.shown'));
};
function openExtras(open) {
  $('.extras').classList.toggle('shown', open);
  $('.menu').setAttribute('aria-expanded', open);
}
$('.bar-of-tools').addEventListener('keydown', event => {
  if (event.key !== 'Escape') return;
  const panel = event.target.closest('details[open]');
  if (!panel) openExtras(false);
  else panel.open = false;
  (panel?.querySelector('summary') || $('.menu')).focus();
});

// The box needs room, which a phone gives it only while a part is drawn.
$('.part').addEventListener('click', () => {
  $('.part').setAttribute('aria-expanded', $('.ask').classList.toggle('editing'));
});

// A mouse searches on with a result, and its corner opens the large view. A finger looks first.
page.addEventListener('click', event => {
  fold(event.target);
  if (event.target.closest('a')) return;
  const card = cardOf(event.target), example = event.target.closest('.example');
  if (event.target.closest('.chip')) {
    $('.chip').setAttribute('aria-expanded', page.classList.toggle('unfolded'));
  } else if (event.target.closest('.facts')) {
    openExtras(true);
    $('.help').open = true;
  } else if (example) searchItem(example.dataset.digest);
  else if (card && event.target.closest('.vote')) vote(event.target.closest('.vote').dataset.vote, card.dataset.digest);
  else if (event.target.closest('.alike')) unfold(event.target.closest('.alike'));
  else if (card && (event.target.closest('.open') || matchMedia('(hover: none)').matches)) showLarge(card);
  else if (card && event.target.closest('.hit')) searchItem(card.dataset.digest);
});

const PICTURE = '.tools button, .file, .camera', BAR = '.switch button, .bar-of-tools summary, .menu, .k, .share button, [data-column="0"] .mode-of';
for (const group of [PICTURE, '.examples button', BAR]) rove($$(group));

addEventListener('popstate', readAddress);
walkResults(page, showLarge, vote);
readAddress();
