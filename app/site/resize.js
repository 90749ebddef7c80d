// Pillow's bicubic resize with antialiasing, to the bit: `(side, side, 3)` of the middle of RGBA pixels.

const BITS = 22, HALF = 1 << (BITS - 1);  // of Pillow's fixed-point coefficients

function bicubic(x) {
  x = Math.abs(x);
  if (x < 1) return (1.5 * x - 2.5) * x * x + 1;
  return x < 2 ? (((x - 5) * x + 8) * x - 4) * -0.5 : 0;
}

function coefficients(length, first, last, side) {
  const scale = (last - first) / side, stretch = Math.max(scale, 1), support = 2 * stretch;
  const size = Math.ceil(support) * 2 + 1, starts = new Int32Array(side), counts = new Int32Array(side);
  const weights = new Int32Array(side * size), exact = new Float64Array(size);
  for (let i = 0; i < side; i++) {
    const centre = first + (i + 0.5) * scale;
    const start = Math.max(0, Math.trunc(centre - support + 0.5));
    const count = Math.min(length, Math.trunc(centre + support + 0.5)) - start;
    let sum = 0;
    for (let x = 0; x < count; x++) sum += exact[x] = bicubic((x + start - centre + 0.5) * (1 / stretch));
    for (let x = 0; x < count; x++) {
      const share = exact[x] * (1 / sum);
      weights[i * size + x] = Math.trunc((share < 0 ? -0.5 : 0.5) + share * (1 << BITS));
    }
    [starts[i], counts[i]] = [start, count];
  }
  return {starts, counts, weights, size};
}

// Averages blocks of `times` by `times` pixels, as Pillow's reduce.
export function reduce(rgba, width, height, times) {
  const wide = Math.ceil(width / times), high = Math.ceil(height / times), out = new Uint8ClampedArray(wide * high * 4);
  for (let y = 0, to = 0; y < high; y++) {
    const bottom = Math.min((y + 1) * times, height);
    for (let x = 0; x < wide; x++, to += 4) {
      const right = Math.min((x + 1) * times, width), count = (bottom - y * times) * (right - x * times);
      let r = count >> 1, g = r, b = r;
      for (let row = y * times; row < bottom; row++) {
        for (let at = 4 * (row * width + x * times), end = 4 * (row * width + right); at < end; at += 4) {
          r += rgba[at];
          g += rgba[at + 1];
          b += rgba[at + 2];
        }
      }
      out[to] = Math.floor(r / count);
      out[to + 1] = Math.floor(g / count);
      out[to + 2] = Math.floor(b / count);
    }
  }
  return {data: out, width: wide, height: high};
}

const clip = sum => Math.min(Math.max(sum >> BITS, 0), 255);

export function square(rgba, width, height, side, crop) {
  const left = Math.fround((1 - crop) / 2 * width), top = Math.fround((1 - crop) / 2 * height);
  const right = Math.fround(width - (1 - crop) / 2 * width), bottom = Math.fround(height - (1 - crop) / 2 * height);
  const across = coefficients(width, left, right, side), down = coefficients(height, top, bottom, side);
  const firstRow = down.starts[0], lastRow = down.starts[side - 1] + down.counts[side - 1];
  const narrow = new Uint8Array((lastRow - firstRow) * side * 3), out = new Uint8Array(side * side * 3);
  for (let y = firstRow, to = 0; y < lastRow; y++) {
    for (let i = 0; i < side; i++) {
      let r = HALF, g = HALF, b = HALF;
      const count = across.counts[i], from = i * across.size;
      for (let x = 0, at = 4 * (y * width + across.starts[i]); x < count; x++, at += 4) {
        const weight = across.weights[from + x];
        r += rgba[at] * weight;
        g += rgba[at + 1] * weight;
        b += rgba[at + 2] * weight;
      }
      narrow[to++] = clip(r);
      narrow[to++] = clip(g);
      narrow[to++] = clip(b);
    }
  }
  const line = 3 * side;
  for (let i = 0; i < side; i++) {
    const count = down.counts[i], from = i * down.size, start = (down.starts[i] - firstRow) * line;
    for (let x = 0; x < line; x++) {
      let sum = HALF;
      for (let y = 0, at = start + x; y < count; y++, at += line) sum += narrow[at] * down.weights[from + y];
      out[i * line + x] = clip(sum);
    }
  }
  return out;
}
