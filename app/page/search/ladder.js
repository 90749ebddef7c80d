// The ladder: two lists one below the other, with a line from each result to its twin in the other list.

const SVG = 'http://www.w3.org/2000/svg';

function makeLadder(columns, svg) {
  function draw() {
    if (!svg.closest('.runged')) return;  // another view is shown: measuring would lay out the page once more
    const box = svg.getBoundingClientRect();
    const [left, right] = [...columns.querySelectorAll('.column')].map(column => [...column.querySelectorAll('.card')]);
    const twins = new Map(right.map((card, rank) => [card.dataset.id, [card, rank]]));
    const middle = card => {
      const place = card.querySelector('.hit').getBoundingClientRect();
      return place.y + place.height / 2 - box.y;
    };
    svg.setAttribute('viewBox', `0 0 ${box.width} ${box.height}`);
    svg.replaceChildren(...left.flatMap((card, rank) => {
      const [twin, there] = twins.get(card.dataset.id) || [];
      if (!twin) return [];
      const from = middle(card), to = middle(twin), half = box.width / 2, line = document.createElementNS(SVG, 'path');
      line.setAttribute('d', `M4 ${from}C${half} ${from} ${half} ${to} ${box.width - 4} ${to}`);
      line.style.strokeWidth = 1.5 + Math.min(Math.abs(rank - there), 5) / 2;
      line.classList.toggle('same', rank === there);
      line.dataset.id = card.dataset.id;
      return [line];
    }));
  }
  new ResizeObserver(draw).observe(svg);
  return draw;
}
