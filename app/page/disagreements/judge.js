// Judging disagreements: who is right, by button or key. What was judged of an index stays in this browser, by the photo's name.

const STORE = `judged ${element.querySelector('.tab').dataset.of}`, KEYS = {1: 'student', 2: 'teacher', 3: 'both'};
const kept = openStorage();
const judged = () => JSON.parse(kept.getItem(STORE) || '{}');  // name to [judgement, overlap]
const cases = () => [...element.querySelectorAll('.cases li')];

// Where the browser keeps nothing, judgements last as long as the page.
function openStorage() {
  try {
    return window.localStorage;
  } catch {
    const known = new Map();
    return {getItem: key => known.get(key), setItem: (key, text) => known.set(key, text), removeItem: key => known.delete(key)};
  }
}

function showJudged() {
  const known = judged(), count = name => Object.values(known).filter(each => each[0] === name).length;
  for (const each of cases()) {
    for (const button of each.querySelectorAll('[data-judge]')) {
      button.setAttribute('aria-pressed', known[each.dataset.name]?.[0] === button.dataset.judge);
    }
  }
  element.querySelector('.judged').hidden = !Object.keys(known).length;
  element.querySelector('.judged p').textContent =
    `${Object.keys(known).length} judged: student right ${count('student')}, teacher right ${count('teacher')}, both fine ${count('both')}.`;
}

// The same judgement again takes it back.
function judge(each, name) {
  const known = judged();
  if (known[each.dataset.name]?.[0] === name) delete known[each.dataset.name];
  else known[each.dataset.name] = [name, each.dataset.overlap];
  kept.setItem(STORE, JSON.stringify(known));
  showJudged();
}

function saveJudged(file) {
  const known = Object.entries(judged());
  // A spreadsheet must not take a name for a formula.
  const cell = text => `"${(/^[=+@-]/.test(text) ? "'" : '') + text.replaceAll('"', '""')}"`;
  const lines = file.endsWith('.csv')
    ? ['name,right,overlap', ...known.map(([name, [right, overlap]]) => `${cell(name)},${right},${overlap}`)]
    : known.filter(([, [right]]) => right === 'teacher').map(([name]) => name);
  saveFile(file, lines.join('\n') + '\n');
}

element.addEventListener('click', event => {
  const button = event.target.closest('button');
  if (button?.dataset.judge) judge(button.closest('li'), button.dataset.judge);
  else if (button?.dataset.save) saveJudged(button.dataset.save);
  else if (button?.className === 'forget') { kept.removeItem(STORE); showJudged(); }
});
document.addEventListener('keydown', event => {
  if (event.ctrlKey || event.metaKey || event.altKey || !element.offsetParent || event.target.closest('input, select')) return;
  const at = cases().findIndex(each => each.contains(document.activeElement)), step = {j: 1, k: -1}[event.key];
  if (step) cases()[Math.max(at + step, 0)]?.querySelector('a').focus();
  else if (KEYS[event.key] && at >= 0) {
    judge(cases()[at], KEYS[event.key]);
    cases()[at + 1]?.querySelector('a').focus();
  }
});
