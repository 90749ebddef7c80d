// The disagreements: one page at a time, narrowed as one types. Filter and page are in the address.

const body = element.querySelector('.body');
const prefix = element.querySelector('.prefix'), most = element.querySelector('.most');
let page = 0, serial = 0, pause;

// An answer that a later request has overtaken is dropped.
async function load() {
  const mine = ++serial;
  const asked = {prefix: prefix.value, most: Number(most.value), page};
  const answer = await server.disagreements(asked) ?? {html: NO_ANSWER};
  if (mine !== serial) return;
  body.innerHTML = answer.html;
  showJudged();
  if (answer.waiting) setTimeout(() => mine === serial && load(), 500);
}

function write(how) {
  const url = new URL(location);
  for (const [name, value] of [['d.prefix', prefix.value], ['d.most', most.value === '100' ? '' : most.value], ['d.page', page ? page + 1 : '']]) {
    if (value) url.searchParams.set(name, value);
    else url.searchParams.delete(name);
  }
  history[how](null, '', url);
}

function read() {
  const asked = new URLSearchParams(location.search);
  prefix.value = asked.get('d.prefix') || '';
  most.value = asked.get('d.most') || 100;
  page = Math.max(Number(asked.get('d.page')) - 1 || 0, 0);
  element.querySelector('.value').textContent = `${most.value}%`;
}

element.addEventListener('input', () => {
  element.querySelector('.value').textContent = `${most.value}%`;
  page = 0;
  write('replaceState');
  clearTimeout(pause);
  pause = setTimeout(load, 200);
});
element.addEventListener('click', async event => {
  const button = event.target.closest('button[data-page]');
  if (!button) return;
  page = Number(button.dataset.page);
  write('pushState');
  const way = button.className;
  await load();
  const again = body.querySelector(`button.${way}:not(:disabled)`) || body.querySelector('.pager button:not(:disabled)');
  again?.focus({preventScroll: true});
});
addEventListener('popstate', () => {
  if (new URLSearchParams(location.search).get('tab') !== 'disagreements') return;
  const before = [prefix.value, most.value, page].join();
  read();
  if (serial && [prefix.value, most.value, page].join() !== before) load();
});

read();
whenSeen(load);
