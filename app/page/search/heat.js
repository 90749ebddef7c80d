// Why a result matches: one map over the query and one over the result, dark where the photo could be covered.

const NIGHT = [0, 10, 40], LIGHT = [255, 200, 0];

function makeHeat(dialog, ask) {
  const button = dialog.querySelector('.why'), maps = [...dialog.querySelectorAll('.heat')], because = dialog.querySelector('.because');
  let hit = null;

  // Each cell is a pixel, from night to a warm light, drawn large and smooth over the part that the student looks at.
  function draw(canvas, picture, rows, [left, top, right, bottom]) {
    const small = document.createElement('canvas'), side = small.width = small.height = rows.length;
    const colours = rows.flat().flatMap(heat => [...NIGHT.map((dark, i) => dark + heat * (LIGHT[i] - dark)), 204 - 130 * heat]);
    small.getContext('2d').putImageData(new ImageData(Uint8ClampedArray.from(colours), side), 0, 0);
    const {width, height} = Object.assign(canvas, {width: picture.naturalWidth || picture.width, height: picture.naturalHeight || picture.height});
    const pen = canvas.getContext('2d'), part = [left * width, top * height, (right - left) * width, (bottom - top) * height];
    pen.fillStyle = `rgb(${NIGHT.join()}, 0.8)`;
    pen.fillRect(0, 0, width, height);
    pen.clearRect(...part);
    pen.drawImage(small, ...part);
    canvas.hidden = false;
  }

  function reset() {
    for (const canvas of maps) canvas.hidden = true;
    button.setAttribute('aria-pressed', false);
    because.textContent = '';
  }

  async function explain() {
    const mine = hit, pictures = maps.map(canvas => canvas.parentElement.firstChild);
    button.setAttribute('aria-pressed', true);
    because.textContent = 'Looking…';
    const answer = await ask(mine) ?? {error: '<p class="note error">Can\'t reach the server. Try again.</p>'};
    await pictures[1].decode().catch(() => {});  // its size is that of the map
    if (mine !== hit || button.getAttribute('aria-pressed') !== 'true') return;
    if (answer.error) { reset(); because.innerHTML = answer.error; return; }
    maps.forEach((canvas, i) => {
      draw(canvas, pictures[i], answer.maps[i], answer.boxes[i]);
      canvas.ariaLabel = answer.said[i];
    });
    because.textContent = 'Lit where covering the photo lowers the similarity most. Student only: a teacher would be asked 100 times, which costs.';
  }

  button.addEventListener('click', () => { if (button.getAttribute('aria-pressed') === 'true') reset(); else explain(); });
  return item => { hit = item; reset(); };
}
