// The disagreements: one page at a time, narrowed as one types.

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
  if (answer.waiting) setTimeout(() => mine === serial && load(), 500);
}

element.addEventListener('input', () => {
  element.querySelector('.value').textContent = `${most.value}%`;
  page = 0;
  clearTimeout(pause);
  pause = setTimeout(load, 200);
});
element.addEventListener('click', async event => {
  const button = event.target.closest('button[data-page]');
  if (!button) return;
  page = Number(button.dataset.page);
  const way = button.className;
  await load();
  const again = body.querySelector(`button.${way}:not(:disabled)`) || body.querySelector('.pager button:not(:disabled)');
  again?.focus({preventScroll: true});
});

whenSeen(load);
