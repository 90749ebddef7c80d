// The gallery in memory: rows of 16 bits, or codes, and the search in them.

import {makeKernels} from './kernels.js';

export const NEVER = -(2 ** 31);  // the score of what is not found

const align = bytes => Math.ceil(bytes / 16) * 16;

export class Gallery {
  constructor({shards, dim, bits, rescore, levels}, simd = true) {
    Object.assign(this, {shards, dim, bits, rescore, levels, missing: 0, there: new Set()});
    this.starts = [];
    this.count = 0;
    for (const shard of shards) {
      this.starts.push(this.count);
      this.count += shard.count;
    }
    this.stride = bits ? 8 * Math.ceil(bits / 64) : align(2 * dim);  // bytes from one row to the next
    this.scoresAt = align(this.stride);  // the query is at 0
    this.rowsAt = align(this.scoresAt + 4 * this.count);
    this.kernels = makeKernels(this.rowsAt + this.count * this.stride, simd);
    this.bytes = new Uint8Array(this.kernels.buffer);
    this.numbers = new Int16Array(this.kernels.buffer);
  }

  // Takes the bytes of a part; false if they are not those of the manifest. Codes lie in words of 32 bits; of rows the
  // numbers of each column lie together, folded, the low bytes of all and then the high ones, which packs better.
  add(place, bytes) {
    const {count} = this.shards[place], {bits, dim, stride} = this, at = this.rowsAt + this.starts[place] * stride;
    const length = bits ? 4 * Math.ceil(bits / 32) : dim, numbers = count * length;
    if (bytes?.length !== (bits ? numbers : 2 * numbers)) {
      this.missing += count;
      return false;
    }
    if (bits) for (let row = 0; row < count; row++) this.bytes.set(bytes.subarray(row * length, (row + 1) * length), at + row * stride);
    else for (let column = 0, from = 0; column < dim; column++) {
      for (let row = 0, to = at / 2 + column; row < count; row++, from++, to += stride / 2) {
        this.numbers[to] = unfold(bytes[from] | bytes[numbers + from] << 8);
      }
    }
    this.there.add(place);
    return true;
  }

  // Where a photo is: its part, and its place there.
  find(id) {
    return find(this.starts, id);
  }

  // The query that a photo of the gallery is.
  row(id) {
    if (!this.there.has(this.find(id)[0])) return null;
    const at = this.rowsAt + id * this.stride;
    if (!this.bits) return Float32Array.from(new Int16Array(this.bytes.buffer, at, this.dim), each => each / this.levels);
    const row = new Float32Array(this.bits), one = 1 / Math.sqrt(this.bits);
    for (let bit = 0; bit < this.bits; bit++) row[bit] = this.bytes[at + (bit >> 3)] >> (bit & 7) & 1 ? one : -one;
    return row;
  }

  // The k nearest of a unit query, as [id, similarity], best first; `keep` has a 1 for each photo that is wanted.
  search(query, k, keep = null, without = -1) {
    const {bits, rescore, stride, scoresAt, rowsAt, count} = this;
    const one = bits ? this.writeCode(query) : this.writeRow(query);
    this.kernels[bits ? 'apart' : 'dots'](0, rowsAt, stride, count, scoresAt);
    const scores = new Int32Array(this.bytes.buffer, scoresAt, count);
    for (const [place, start] of this.starts.entries()) {
      if (!this.there.has(place)) scores.fill(NEVER, start, start + this.shards[place].count);
    }
    if (without >= 0) scores[without] = NEVER;
    const best = top(scores, bits ? Math.max(k, rescore) : k, keep);
    if (!bits || !rescore) return best.map(id => [id, bits ? 1 + 2 * scores[id] / bits : scores[id] / one]);
    return best.map(id => [id, this.compare(query, id)]).sort((a, b) => b[1] - a[1] || a[0] - b[0]).slice(0, k);
  }

  // The similarity of a query of floats and a code: 1 where their signs are the same.
  compare(query, id) {
    const {bits, bytes} = this, at = this.rowsAt + id * this.stride;
    let sum = 0, most = 0;
    for (let bit = 0; bit < bits; bit++) {
      sum += bytes[at + (bit >> 3)] >> (bit & 7) & 1 ? query[bit] : -query[bit];
      most += Math.abs(query[bit]);
    }
    return most && sum / most;
  }

  // Write the query as whole numbers of 16 bits, as fine as sums of 31 bits allow; return what a product of 1 comes to.
  writeRow(query) {
    const scale = Math.min(32767 / query.reduce((most, each) => Math.max(most, Math.abs(each)), 1e-9), 2 ** 30 / this.levels);
    new Int16Array(this.bytes.buffer, 0, this.dim).set(query.map(each => Math.round(scale * each)));
    return scale * this.levels;
  }

  writeCode(query) {
    this.bytes.fill(0, 0, this.stride);
    query.forEach((value, bit) => { if (value > 0) this.bytes[bit >> 3] |= 1 << (bit & 7); });
  }
}

// 0, 1, 2, 3 to 0, -1, 1, -2.
export const unfold = folded => folded >>> 1 ^ -(folded & 1);

// Where an id is: its part by where these start, and its place there.
export function find(starts, id) {
  let place = starts.length - 1;
  while (place > 0 && starts[place] > id) place--;
  return [place, id - starts[place]];
}

// The ids of the k highest; ties by rising id.
export function top(scores, k, keep = null) {
  const ids = new Int32Array(k), values = new scores.constructor(k);
  let found = 0, least = NEVER;
  for (let id = 0; id < scores.length; id++) {
    const score = scores[id];
    if (score <= least || keep && !keep[id]) continue;
    let at = found < k ? found++ : k - 1;
    for (; at > 0 && values[at - 1] < score; at--) {
      ids[at] = ids[at - 1];
      values[at] = values[at - 1];
    }
    ids[at] = id;
    values[at] = score;
    if (found === k) least = values[k - 1];
  }
  return Array.from(ids.subarray(0, found));
}
