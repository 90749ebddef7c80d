// The query picture: drawn on a canvas, in quarter turns, under a box that is drawn, moved and resized.
// Boxes are [left, top, right, bottom], as shares of the turned picture.

function makeCropper(root, changed) {
  const WHOLE = [0, 0, 1, 1], LEAST = 0.08, WIDEST = 900;
  const frame = root.querySelector('.frame'), canvas = root.querySelector('canvas'), box = root.querySelector('.box');
  const image = new Image();
  let picture = null, turn = 0, area = WHOLE, drag = null, shows = 0;

  const clamp = (value, low, high) => Math.min(Math.max(value, low), high);
  const isWhole = () => area.every((edge, i) => edge === WHOLE[i]);

  const load = address => new Promise((done, failed) => {
    Object.assign(image, {onload: () => done(image), onerror: failed, src: address});
  });

  // By way of bitmaps: of an image that is drawn itself, browsers keep the pixels long after.
  function draw() {
    const {width, height} = picture, sheet = turn % 2 ? new OffscreenCanvas(height, width) : new OffscreenCanvas(width, height);
    const pen = sheet.getContext('2d');
    pen.translate(sheet.width / 2, sheet.height / 2);
    pen.rotate(turn * Math.PI / 2);
    pen.drawImage(picture, -width / 2, -height / 2);
    [canvas.width, canvas.height] = [sheet.width, sheet.height];
    canvas.getContext('bitmaprenderer').transferFromImageBitmap(sheet.transferToImageBitmap());
  }

  function place() {
    const [left, top, right, bottom] = area;
    Object.assign(box.style, {
      left: `${100 * left}%`, top: `${100 * top}%`,
      width: `${100 * (right - left)}%`, height: `${100 * (bottom - top)}%`,
    });
    root.classList.toggle('cut', !isWhole());
  }

  function set(next, live) {
    area = next;
    place();
    changed(live);
  }

  function at(event) {
    const bounds = frame.getBoundingClientRect();
    return [clamp((event.clientX - bounds.left) / bounds.width, 0, 1),
      clamp((event.clientY - bounds.top) / bounds.height, 0, 1)];
  }

  function between([x1, y1], [x2, y2]) {
    return [Math.min(x1, x2), Math.min(y1, y2), Math.max(x1, x2), Math.max(y1, y2)];
  }

  function shifted([left, top, right, bottom], dx, dy) {
    const x = clamp(dx, -left, 1 - right), y = clamp(dy, -top, 1 - bottom);
    return [left + x, top + y, right + x, bottom + y];
  }

  frame.addEventListener('pointerdown', event => {
    if (event.button || !box.checkVisibility()) return;  // a thumbnail, on a phone
    event.preventDefault();
    box.focus({preventScroll: true});
    frame.setPointerCapture(event.pointerId);
    const point = at(event), corner = event.target.dataset.corner, [left, top, right, bottom] = area;
    const inside = point[0] >= left && point[0] <= right && point[1] >= top && point[1] <= bottom;
    drag = {before: area, from: point};
    if (corner && !isWhole()) {
      drag.anchor = [corner.includes('w') ? right : left, corner.includes('n') ? bottom : top];
    } else if (!inside || isWhole()) {
      drag.anchor = point;
    }
  });

  frame.addEventListener('pointermove', event => {
    if (!drag) return;
    const point = at(event);
    const next = drag.anchor
      ? between(drag.anchor, point)
      : shifted(drag.before, point[0] - drag.from[0], point[1] - drag.from[1]);
    if (next[2] - next[0] >= LEAST && next[3] - next[1] >= LEAST) set(next, true);
  });

  for (const end of ['pointerup', 'pointercancel']) {
    frame.addEventListener(end, () => {
      if (drag && drag.before !== area) changed(false);
      drag = null;
    });
  }

  box.addEventListener('keydown', event => {
    const step = {ArrowLeft: [-0.05, 0], ArrowRight: [0.05, 0], ArrowUp: [0, -0.05], ArrowDown: [0, 0.05]}[event.key];
    if (event.key === 'Escape' && !isWhole()) set(WHOLE, false);
    else if (!step) return;
    else if (event.shiftKey || isWhole()) {
      const right = clamp(area[2] + step[0], area[0] + LEAST, 1), bottom = clamp(area[3] + step[1], area[1] + LEAST, 1);
      set([area[0], area[1], right, bottom], false);
    } else set(shifted(area, ...step), false);
    event.preventDefault();
    event.stopPropagation();
  });

  function rotate(by) {
    turn = (turn + by + 4) % 4;
    const [left, top, right, bottom] = area;
    area = by > 0 ? [1 - bottom, left, 1 - top, right] : [top, 1 - right, bottom, 1 - left];
    if (picture) draw();  // or it is drawn when it comes
    place();
    changed(false);
  }

  root.querySelector('.turn-left').addEventListener('click', () => rotate(-1));
  root.querySelector('.turn-right').addEventListener('click', () => rotate(1));
  root.querySelector('.whole').addEventListener('click', () => {
    if (!isWhole()) set(WHOLE, false);
    box.focus({preventScroll: true});  // the button hides
  });

  return {
    get view() { return {turn, box: area}; },
    look(view = {turn: 0, box: WHOLE}) {
      ({turn, box: area} = view);
      place();
    },
    // Show the first of these that the browser can draw: photos, or addresses; each may be a promise of one, or a function.
    async show(sources) {
      const mine = ++shows;
      for (const source of sources) {
        let next;
        try {
          const found = await (typeof source === 'function' ? source() : source);
          if (mine !== shows) return;
          const whole = await createImageBitmap(found instanceof Blob ? found : await load(found));
          const scale = Math.min(1, WIDEST / Math.max(whole.width, whole.height));
          next = await createImageBitmap(whole, {resizeWidth: Math.ceil(scale * whole.width), resizeQuality: 'high'});
          whole.close();
        } catch {
          continue;
        }
        if (mine !== shows) return;
        picture?.close();
        picture = next;
        draw();
        return;
      }
    },
  };
}
