// The blind vote: a round is known here by its key alone. The server keeps the order until the vote is cast.

const stage = element.querySelector('.stage'), standing = element.querySelector('.standing');
const pair = element.querySelector('.pair');
let round = '', busy = false, again = deal;

// The round stays as it is, to be voted on once the server is there again.
function sayLost(question) {
  again = question;
  stage.querySelector('.error')?.remove();
  stage.insertAdjacentHTML('afterbegin', NO_ANSWER);
}

async function ask(question) {
  if (busy) return;
  busy = true;
  const focused = stage.contains(document.activeElement), answer = await question();
  busy = false;
  if (!answer) { sayLost(() => ask(question)); return; }
  round = answer.round || '';
  stage.innerHTML = answer.stage;
  if (answer.standing) standing.innerHTML = answer.standing;
  if (focused) stage.querySelector('button')?.focus({preventScroll: true});
}

function deal() { return ask(() => server.deal({pair: pair.value})); }
const vote = choice => ask(() => server.vote({pair: pair.value, round, choice}));

async function save() {
  const table = await server.export_votes({});
  if (table === undefined) { sayLost(save); return; }
  stage.querySelector('.error')?.remove();
  saveFile('votes.csv', table);
}

element.addEventListener('click', event => {
  const action = event.target.closest('button[data-action]')?.dataset.action;
  if (action === 'next') deal();
  else if (action === 'export') save();
  else if (action) vote(action);
});
pair.addEventListener('change', deal);
document.addEventListener('keydown', event => {
  if (event.ctrlKey || event.metaKey || event.altKey || event.repeat || !element.offsetParent) return;
  if (event.target.closest('input, textarea, select, [contenteditable]')) return;
  stage.querySelector(`button[data-key="${CSS.escape(event.key.toLowerCase())}"]`)?.click();
});

whenSeen(() => again());
