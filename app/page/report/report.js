// The report: asked for when it is first seen, and again until all of it is measured.

const body = element.querySelector('.body');
let searches = 6;  // powers of ten

async function load() {
  const answer = await server.report({}) ?? {html: NO_ANSWER};
  body.innerHTML = answer.html;
  sayVolume();
  if (answer.waiting) setTimeout(load, 500);
}

function duration(seconds) {
  for (const [unit, length] of [['days', 86400], ['hours', 3600], ['minutes', 60]]) {
    if (seconds >= 2 * length) return `${(seconds / length).toFixed(1)} ${unit}`;
  }
  return `${seconds.toFixed(0)} seconds`;
}

// What a number of searches takes each model, and what the teacher's answers would cost.
function sayVolume() {
  const volume = body.querySelector('.volume');
  if (!volume) return;
  const slider = volume.querySelector('input'), {times, queried, price} = volume.dataset;
  slider.value = searches;
  const step = 10 ** Math.floor(searches), count = Math.round(10 ** searches / step * 10) / 10 * step, each = n => n.toLocaleString('en'), money = n => n.toLocaleString('en', {minimumFractionDigits: 2, maximumFractionDigits: 2});
  const [student, teacher] = times.split(',').map(time => duration(count * time / 1000));
  const paid = price && `, and its calls would cost ${money(count * price / 1000)}`;
  const even = queried && ` Training took ${each(Number(queried))} calls${price && ` (${money(queried * price / 1000)})`}: every search after as many saves one.`;
  volume.querySelector('output').textContent = each(count);
  volume.querySelector('p').textContent = `One after another here: ${student} with the student, ${teacher} with the teacher${paid}.${even}`;
}

body.addEventListener('input', event => {
  searches = Number(event.target.value);
  sayVolume();
});

whenSeen(load);
