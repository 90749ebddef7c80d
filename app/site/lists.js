// A large gallery, in lists of photos near each other: gets the lists that a search visits, which tell roughly what is
// near, and then the parts with the rows of that.

import {Gallery, NEVER, find, top, unfold} from './gallery.js';

const KEPT = 128;  // files that are kept unpacked, those used last
const MORE = 3;  // photos for each result whose rows are got
const ROUGH = Float32Array.from({length: 256}, (_, folded) => unfold(folded));
const read = bytes => JSON.parse(new TextDecoder().decode(bytes));

export class Lists {
  constructor({lists: {centres, table, part, rough, visits}, dim, bits, rescore, levels, count}, files) {
    Object.assign(this, {room: part, rough, visits, dim, bits, rescore, levels, count, files});
    Object.assign(this, {names: [centres, table], kept: new Map(), missing: 0, lost: new Set(), searched: 0});
  }

  async open() {
    const [centres, table] = await Promise.all(this.names.map(name => this.files.get(name)));
    this.table = read(table);  // of each list how many photos it has, and its name
    this.names.push(...this.table.map(([, name]) => name));
    this.starts = [];
    this.table.reduce((start, [count]) => { this.starts.push(start); return start + count; }, 0);
    this.centres = new Gallery({shards: [{count: this.table.length}], dim: this.bits || this.dim, bits: 0, levels: this.levels});
    if (!this.centres.add(0, centres)) throw new Error('The lists of the gallery are of another version. Reload the page.');
  }

  // A file of a list: 0 has all its rows roughly, the others have a part each. Null if it is missing.
  async file(list, i) {
    const name = `${this.table[list][1]}-${i}.bin`, got = this.kept.get(name) ?? this.files.get(name);
    this.kept.delete(name);
    this.kept.set(name, got);
    if (this.kept.size > KEPT) this.kept.delete(this.kept.keys().next().value);
    try {
      return await got;
    } catch {
      this.kept.delete(name);
      if (!this.lost.has(name)) this.missing += i ? this.size(list, i) : this.table[list][0];
      this.lost.add(name);
      return null;
    }
  }

  // How many photos a part has.
  size(list, i) {
    return Math.min(this.room, this.table[list][0] - (i - 1) * this.room);
  }

  // The rows of a part `[list, i]` as bytes, and what is known of its photos.
  async part([list, i]) {
    const count = this.size(list, i), length = count * (this.bits ? 4 * Math.ceil(this.bits / 32) : 2 * this.dim);
    const bytes = await this.file(list, i);
    return {count, rows: bytes?.subarray(0, length), facts: bytes?.subarray(length)};
  }

  // Some parts as a gallery, which is small enough for plain loops.
  async galleryOf(places) {
    const shards = await Promise.all(places.map(place => this.part(place))), {dim, bits, rescore, levels} = this;
    const gallery = new Gallery({shards, dim, bits, rescore, levels}, false);
    shards.forEach(({rows}, place) => gallery.add(place, rows));
    return gallery;
  }

  // The part of a photo as `[list, i]`, and its place there.
  find(id) {
    const [list, row] = find(this.starts, id);
    return [[list, 1 + Math.floor(row / this.room)], row % this.room];
  }

  // What is known of the photos of a part.
  async factsOf(place) {
    const {facts} = await this.part(place);
    return facts ? read(facts) : null;
  }

  async row(id) {
    const [place, row] = this.find(id);
    return (await this.galleryOf([place])).row(row);
  }

  // As `Gallery.search`, in the lists nearest to the query.
  async search(query, k, without = -1) {
    const near = this.centres.search(query, this.visits).map(([list]) => list);
    const lists = await Promise.all(near.map(list => this.file(list, 0))), starts = [];
    const total = near.reduce((start, list) => { starts.push(start); return start + this.table[list][0]; }, 0);
    if (!lists.some(Boolean)) throw new Error('The gallery cannot be loaded. Reload the page, or try again when online.');
    const scores = new Float32Array(total).fill(NEVER), rough = this.bits && !this.rescore ? query.map(Math.sign) : query;
    lists.forEach((bytes, place) => { if (bytes) this.compare(rough, bytes, scores.subarray(starts[place], starts[place] + this.table[near[place]][0])); });
    const wanted = new Map(top(scores, MORE * k).map(place => {
      const [at, row] = find(starts, place), part = [near[at], 1 + Math.floor(row / this.room)];
      return [part.join(), part];
    }));
    const places = [...wanted.values()], gallery = await this.galleryOf(places);
    this.searched = total;
    const found = gallery.search(query, k + 1).map(([row, score]) => {
      const [at, place] = gallery.find(row), [list, i] = places[at];
      return [this.starts[list] + (i - 1) * this.room + place, score];
    });
    return found.filter(([id]) => id !== without).slice(0, k);
  }

  // The rough scores of a list, whose mean row comes before the others.
  compare(query, bytes, scores) {
    let mean = 0, from = 0;
    scores.fill(0);
    for (const value of query) {
      mean += value * ROUGH[bytes[from++]];
      for (let row = 0; row < scores.length; row++) scores[row] += value * ROUGH[bytes[from++]];
    }
    for (let row = 0; row < scores.length; row++) scores[row] = (scores[row] + mean) / this.rough;
  }

  // The id of the photo with a key, which is its digest and its list.
  async findKey(key) {
    const [digest, list] = key.split('.'), count = Math.ceil((this.table[list]?.[0] ?? 0) / this.room);
    for (let i = 1; i <= count; i++) {
      const row = (await this.factsOf([list, i]))?.digests.indexOf(digest) ?? -1;
      if (row >= 0) return this.starts[list] + (i - 1) * this.room + row;
    }
    return null;
  }
}
