// Results on the page: walking through them by keyboard, lighting up twins, saving them.

const cardOf = target => target.closest?.('.card');

// The nearest result in a direction, in whichever column.
function neighbour(hits, from, key) {
  const middle = each => { const r = each.getBoundingClientRect(); return [r.x + r.width / 2, r.y + r.height / 2]; };
  const [x, y] = middle(from), sideways = key === 'ArrowLeft' || key === 'ArrowRight';
  const sign = key === 'ArrowRight' || key === 'ArrowDown' ? 1 : -1;
  let best = null, least = Infinity;
  for (const hit of hits) {
    const [hx, hy] = middle(hit);
    const ahead = sign * (sideways ? hx - x : hy - y), aside = Math.abs(sideways ? hy - y : hx - x);
    if (ahead > 4 && (!sideways || aside < 40) && ahead + 4 * aside < least) [best, least] = [hit, ahead + 4 * aside];
  }
  return best;
}

// Near-duplicates lie under the first of them until they are asked for.
function unfold(button) {
  const card = cardOf(button), open = button.getAttribute('aria-expanded') !== 'true';
  button.setAttribute('aria-expanded', open);
  for (const each of card.parentElement.querySelectorAll(`[data-under="${card.dataset.id}"]`)) each.classList.toggle('folded', !open);
}

function walkResults(page, showLarge, vote) {
  function light(card) {
    page.querySelectorAll('.columns .lit').forEach(each => each.classList.remove('lit'));
    if (card) page.querySelectorAll(`.columns [data-id="${card.dataset.id}"]`).forEach(each => each.classList.add('lit'));
  }
  for (const kind of ['mouseover', 'focusin']) page.addEventListener(kind, event => light(cardOf(event.target)));

  page.addEventListener('keydown', event => {
    const hit = event.target.closest?.('.hit');
    if (!hit || event.ctrlKey || event.metaKey || event.altKey) return;
    if (event.key.startsWith('Arrow')) {
      const next = neighbour([...page.querySelectorAll('.columns .hit')].filter(each => each.checkVisibility()), hit, event.key);
      if (next) { hit.tabIndex = -1; next.tabIndex = 0; next.focus(); }
    } else if (event.key === '+' && cardOf(hit).querySelector('.alike')) unfold(cardOf(hit).querySelector('.alike'));
    else if (event.key === 'm' || event.key === 'l') vote(event.key === 'm' ? 'like' : 'unlike', cardOf(hit).dataset.digest);
    else if (event.key === ' ' || event.key === 'o') showLarge(cardOf(hit));
    else return;
    event.preventDefault();
  });
  page.addEventListener('keyup', event => {
    if (event.key === ' ' && event.target.closest?.('.hit')) event.preventDefault();  // it would be a click
  });
}

// Saves what is shown, of both columns, so that it also works for a photo that has no address.
function saveResults(lists, modes, query, format) {
  const rows = lists.flatMap((list, i) => [...list.querySelectorAll('.card')].map((card, place) => ({
    mode: modes[i], rank: place + 1, score: Number(card.dataset.score), id: Number(card.dataset.id), name: card.dataset.name,
  })));
  // A spreadsheet must not take a name for a formula.
  const cell = value => /[",\r\n]|^[=+@-]/.test(value) && typeof value === 'string'
    ? `"${(/^[=+@-]/.test(value) ? "'" : '') + value.replaceAll('"', '""')}"` : value;
  saveFile(`results.${format}`, format === 'json'
    ? JSON.stringify({query, results: rows}, null, 2)
    : ['mode,rank,score,id,name', ...rows.map(row => Object.values(row).map(cell).join())].join('\r\n') + '\r\n');
}
