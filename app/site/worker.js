// Does the work beside the page: gets the files, runs the student, searches. Answers {call, question} one by one.

import {decode, prepare} from './decode.js';
import {Files} from './files.js';
import {Gallery} from './gallery.js';
import {Lists} from './lists.js';
import {Network} from './network.js';

const NO_WASM = 'This browser runs no WebAssembly, which the search needs. Use a current browser, and allow it for this page.';
let manifest, files, gallery, student, loading, facts, teacher, last = {};
let wanted = false;  // whether there was a photo yet

const tell = event => postMessage({event});
const json = async name => JSON.parse(new TextDecoder().decode(await files.get(name)));

// A function from pixels to what the student makes of them.
async function openStudent() {
  if (typeof WebAssembly !== 'object' || typeof DecompressionStream !== 'function') throw new Error(NO_WASM);
  const {side, bits} = manifest, output = bits ? 'projections' : 'embeddings', weights = await files.get(manifest.files.student);
  try {
    const network = new Network(weights, output, side), blank = new Uint8Array(3 * side * side);
    if (manifest.files.module) network.run(blank);  // whatever it cannot run shows now
    setTimeout(() => wanted || network.run(blank));  // the first run takes several times as long as others
    return pixels => network.run(pixels);
  } catch (error) {
    if (!manifest.files.module) throw new Error(`${NO_WASM} (${error.message})`);
    return openRuntime(weights, output);  // a student of another kind
  }
}

async function openRuntime(weights, output) {
  const {side, files: {module, wasm}} = manifest;
  const [binary] = await Promise.all([files.get(wasm), files.get(module)]), ort = await import(new URL(module, files.base));
  ort.env.wasm.wasmBinary = binary.buffer;
  ort.env.wasm.numThreads = globalThis.crossOriginIsolated ? Math.min(navigator.hardwareConcurrency, 4) : 1;
  ort.env.logLevel = 'error';
  try {
    const session = await ort.InferenceSession.create(weights, {executionProviders: ['wasm']});
    ort.env.wasm.wasmBinary = undefined;  // 14 MB that nobody reads again
    return async pixels => (await session.run({images: new ort.Tensor('uint8', pixels, [1, side, side, 3])}, [output]))[output].data;
  } catch (error) {
    throw new Error(`${NO_WASM} (${error.message})`);
  }
}

// One part after the other: each is in memory several times while it comes.
async function openGallery() {
  for (const [place, {rows}] of manifest.shards.entries()) {
    gallery.add(place, await files.get(rows).catch(() => null));
  }
  if (gallery.missing === gallery.count) throw new Error('The gallery cannot be loaded. Reload the page, or try again when online.');
}

async function embed({photo, photoId, turn, box}) {
  const part = Boolean(box) && box.join() !== '0,0,1,1';
  if (last.photoId !== photoId || last.part !== part) {
    last.decoded?.image.close();
    last = {};
    last = {photoId, part, decoded: await decode(photo, manifest, part)};
  }
  const {dim, bits} = manifest, found = await (await student)(prepare(last.decoded, manifest, turn, box));
  const values = found.slice(0, bits || dim), length = Math.hypot(...values) || 1;
  return values.map(value => value / length);
}

// What is known of the photos of a part, as columns; of one that is missing nothing is.
const factsOf = place => manifest.lists ? gallery.factsOf(place) : facts[place] ??= json(manifest.shards[place].facts).catch(() => null);

async function describe(id, score) {
  const [place, row] = gallery.find(id), known = await factsOf(place);
  const metadata = Object.entries(known?.columns ?? {}).map(([name, values]) => [name, values[row]]).filter(([, value]) => value);
  const digest = known?.digests[row] ?? '', key = manifest.lists ? `${digest}.${place[0]}` : digest;
  return {id, score, digest, key, name: known?.names[row] ?? '', metadata: Object.fromEntries(metadata)};
}

async function mask({where = {}, prefix = ''}) {
  const wanted = Object.entries(where).filter(([, value]) => value);
  if (!wanted.length && !prefix) return null;
  if (manifest.lists) throw new Error('A gallery this large has no filters in the browser. Search without them.');
  for (const [name] of wanted) {
    if (!(name in manifest.columns)) throw new Error(`This gallery has no column ${name}, only ${Object.keys(manifest.columns).join(', ') || 'none'}.`);
  }
  const keep = new Uint8Array(gallery.count);
  for (const [place, start] of gallery.starts.entries()) {
    const known = await factsOf(place);
    known?.names.forEach((name, row) => {
      keep[start + row] = name.startsWith(prefix)
        && wanted.every(([column, value]) => {
          const own = known.columns[column]?.[row];  // a value may hold the separator
          return own === value || own?.split(manifest.separator).includes(value);
        });
    });
  }
  return keep;
}

async function search({k = 10, cut = 0, item, ...asked}) {
  await loading;
  if (item === undefined) await student;
  const start = performance.now();
  const query = item === undefined ? await embed(asked) : await gallery.row(item);
  if (!query) throw new Error('That photo is in a part of the gallery that is missing. Reload the page.');
  const embedded = performance.now(), keep = await mask(asked), filtered = performance.now();
  let found = manifest.lists
    ? await gallery.search(query, k, item)
    : gallery.search(query, Math.min(k, gallery.count), keep, item);
  if (gallery.missing) tell({missing: gallery.missing});
  if (cut) found = found.filter(([, score]) => score >= Math.min(found[0][1], cut * found[0][1]));
  const searched = performance.now();
  const hits = await Promise.all(found.map(([id, score]) => describe(id, score)));
  const milliseconds = {embed: embedded - start, search: searched - filtered}, searchedIn = gallery.searched ?? gallery.count - gallery.missing;
  return {hits, milliseconds, searched: searchedIn, teacher: item === undefined ? null : await teachersList(item)};
}

// The ids that the teacher ranks first for a photo of the gallery, if the index has its vectors.
async function teachersList(item) {
  if (!manifest.files.teacher) return null;
  teacher ??= files.get(manifest.files.teacher).catch(() => null);
  const bytes = await teacher, depth = manifest.teacher_depth;
  return bytes && Array.from(new Int32Array(bytes.buffer, 4 * item * depth, depth)).filter(id => id >= 0);
}

async function findKey(digest) {
  if (manifest.lists) {
    await loading;
    return gallery.findKey(digest);
  }
  for (const [place, start] of gallery.starts.entries()) {
    const row = (await factsOf(place))?.digests.indexOf(digest) ?? -1;
    if (row >= 0) return start + row;
  }
  return null;
}

function open({base, manifest: given}) {
  manifest = given;
  files = new Files(base, tell);
  gallery = manifest.lists ? new Lists(manifest, files) : new Gallery(manifest);
  facts = [];
  student = openStudent();
  loading = manifest.lists ? gallery.open() : openGallery();
  for (const part of [student, loading]) part.catch(() => {});  // the next search reports it
  Promise.allSettled([student, loading]).then(() => files.tidy([
    ...Object.values(manifest.files), ...manifest.scripts, ...manifest.shards.flatMap(({rows, facts}) => [rows, facts]), ...gallery.names ?? []]));
}

const WORK = {
  open, search, findKey,
  describe: async ({item}) => { await (manifest.lists && loading); return describe(item, 1); },
  embed: async asked => embed(asked),
  ready: () => Promise.all([student, loading]).then(() => true),
};

let turn = Promise.resolve();  // of those that decode a photo or run the student
addEventListener('message', ({data: {call, work, asked}}) => {
  wanted ||= Boolean(asked?.photo);
  const start = asked?.photo ? turn : Promise.resolve();
  const done = start.then(() => WORK[work](asked)).then(answer => postMessage({call, answer}), error => postMessage({call, error: error.message}));
  if (asked?.photo) turn = done;
});
