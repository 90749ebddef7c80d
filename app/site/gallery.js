// The gallery in memory: parts of rows or codes, searched one by one, and what is known of its photos.

// Rows lie in a file as two planes, the low bytes of all numbers and then the high ones, which pack better.
function readRows(bytes, numbers) {
  const rows = new Int16Array(numbers);
  for (let i = 0; i < numbers; i++) rows[i] = bytes[i] | bytes[numbers + i] << 8;
  return rows;
}

export class Gallery {
  constructor({shards, dim, bits, rescore, levels}) {
    Object.assign(this, {shards, dim, bits, rescore, levels, parts: [], missing: 0});
    this.words = Math.ceil(bits / 32);  // of a code, the last one filled up with zeros
    this.starts = [];
    this.count = 0;
    for (const shard of shards) {
      this.starts.push(this.count);
      this.count += shard.count;
    }
  }

  // Takes the bytes of a part; false if they are not those of the manifest.
  add(place, bytes) {
    const {count} = this.shards[place];
    const wanted = this.bits ? count * this.words * 4 : count * this.dim * 2;
    if (bytes?.length !== wanted) {
      this.missing += count;
      return false;
    }
    this.parts[place] = this.bits ? new Uint32Array(bytes.buffer, bytes.byteOffset, wanted / 4) : readRows(bytes, count * this.dim);
    return true;
  }

  // Where a photo is: its part, and its place there.
  find(id) {
    let place = this.starts.length - 1;
    while (place > 0 && this.starts[place] > id) place--;
    return [place, id - this.starts[place]];
  }

  // The query that a photo of the gallery is.
  row(id) {
    const [place, row] = this.find(id), part = this.parts[place];
    if (!part) return null;
    if (!this.bits) return Float32Array.from(part.subarray(row * this.dim, (row + 1) * this.dim), each => each / this.levels);
    const {words} = this, signs = new Float32Array(this.bits);
    for (let bit = 0; bit < this.bits; bit++) signs[bit] = part[row * words + (bit >> 5)] >>> (bit & 31) & 1 ? 1 : -1;
    return signs.map(sign => sign / Math.sqrt(this.bits));
  }

  // The k nearest of a unit query, as [id, similarity], best first; `keep` has a 1 for each photo that is wanted.
  search(query, k, keep = null, without = -1) {
    const scores = this.bits ? this.scoreCodes(query) : this.scoreRows(query);
    if (without >= 0) scores[without] = -Infinity;
    let best = top(scores, this.bits && this.rescore ? Math.max(k, this.rescore) : k, keep);
    if (this.bits && this.rescore) {
      best = best.map(([id]) => [id, dot(query, this.row(id))]).sort((a, b) => b[1] - a[1] || a[0] - b[0]).slice(0, k);
    }
    return best;
  }

  scoreRows(query) {
    const scores = new Float32Array(this.count).fill(-Infinity), {dim, levels} = this, scaled = query.map(each => each / levels);
    for (const [place, start] of this.starts.entries()) {
      const part = this.parts[place];
      for (let row = 0, at = 0; part && at < part.length; row++) {
        let a = 0, b = 0, c = 0, d = 0;
        const end = at + dim - 3;
        let i = 0;
        for (; at < end; at += 4, i += 4) {
          a += part[at] * scaled[i];
          b += part[at + 1] * scaled[i + 1];
          c += part[at + 2] * scaled[i + 2];
          d += part[at + 3] * scaled[i + 3];
        }
        for (; i < dim; i++, at++) a += part[at] * scaled[i];
        scores[start + row] = a + b + c + d;
      }
    }
    return scores;
  }

  scoreCodes(query) {
    const {words} = this, code = new Uint32Array(words), scores = new Float32Array(this.count).fill(-Infinity);
    query.forEach((value, bit) => { if (value > 0) code[bit >> 5] |= 1 << (bit & 31); });
    for (const [place, start] of this.starts.entries()) {
      const part = this.parts[place];
      for (let row = 0, at = 0; part && at < part.length; row++) {
        let apart = 0;
        for (let word = 0; word < words; word++) apart += ones(part[at++] ^ code[word]);
        scores[start + row] = 1 - 2 * apart / this.bits;
      }
    }
    return scores;
  }
}

function ones(word) {
  word -= word >>> 1 & 0x55555555;
  word = (word & 0x33333333) + (word >>> 2 & 0x33333333);
  return Math.imul(word + (word >>> 4) & 0x0f0f0f0f, 0x01010101) >>> 24;
}

const dot = (a, b) => a.reduce((sum, each, i) => sum + each * b[i], 0);

// Ties by rising id.
function top(scores, k, keep) {
  const ids = new Int32Array(k), values = new Float64Array(k);
  let found = 0;
  for (let id = 0; id < scores.length; id++) {
    const score = scores[id];
    if (score === -Infinity || found === k && score <= values[k - 1] || keep && !keep[id]) continue;
    let at = found < k ? found++ : k - 1;
    for (; at > 0 && values[at - 1] < score; at--) {
      ids[at] = ids[at - 1];
      values[at] = values[at - 1];
    }
    ids[at] = id;
    values[at] = score;
  }
  return Array.from(ids.subarray(0, found), (id, i) => [id, values[i]]);
}
