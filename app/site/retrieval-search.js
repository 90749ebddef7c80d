// Searches a gallery that `retrieval site` wrote: `const gallery = await open(url); await gallery.search(photo)`.
// The photo never leaves this device. See retrieval-search.d.ts.

export class Gallery extends EventTarget {
  #worker; #complaints = {}; #calls = new Map(); #next = 0; #photos = new WeakMap(); #base; #closed = '';

  constructor(base, manifest, worker) {
    super();
    this.#base = base;
    this.#worker = worker;
    Object.assign(this, {title: manifest.title, count: manifest.count, columns: manifest.columns, model: manifest.model,
      names: manifest.names, partial: Boolean(manifest.lists),
      scripts: manifest.scripts.map(name => new URL(name, base).href)});
    this.pictures = manifest.pictures;
    worker.addEventListener('message', ({data}) => this.#hear(data));
    this.#ask('open', {base, manifest}).catch(() => {});
  }

  // Resolves when everything that a search needs is here.
  ready() {
    return this.#ask('ready');
  }

  async search(photo, options = {}) {
    const found = await this.#ask('search', {...options, ...this.#identify(photo)});
    return this.#list(found);
  }

  // Searches with a photo of the gallery, in no time: its row is here already.
  async searchItem(item, options = {}) {
    return this.#list(await this.#ask('search', {...options, item}));
  }

  embed(photo, options = {}) {
    return this.#ask('embed', {...options, ...this.#identify(photo)});
  }

  async item(item) {
    return this.#hit(await this.#ask('describe', {item}));
  }

  // The id of the photo with a key, or null.
  find(key) {
    return this.#ask('findKey', key);
  }

  get complaints() {
    return Object.values(this.#complaints);
  }

  close(reason = 'The gallery was closed.') {
    this.#worker.terminate();
    for (const {reject} of this.#calls.values()) reject(new Error(reason));
    this.#calls.clear();
    this.#closed = reason;
  }

  #identify(photo) {
    if (!(photo instanceof Blob)) throw new TypeError('Give a Blob or a File of an image.');
    if (!this.#photos.has(photo)) this.#photos.set(photo, this.#next++);
    return {photo, photoId: this.#photos.get(photo)};
  }

  #list({hits, ...facts}) {
    return Object.assign(hits.map(hit => this.#hit(hit)), facts);
  }

  #hit(hit) {
    const known = {...hit.metadata, name: hit.name, digest: hit.digest};
    const fill = template => template && new URL(template.replace(/\{([^{}]+)\}/g, (_, name) => known[name] === undefined
      ? '' : name === 'name' ? known.name.split('/').map(encodeURIComponent).join('/') : encodeURIComponent(known[name])), this.#base).href;
    return {...hit, thumbnail: fill(this.pictures.small), picture: fill(this.pictures.large)};
  }

  #ask(work, asked) {
    return new Promise((resolve, reject) => {
      if (this.#closed) throw new Error(this.#closed);
      const call = this.#next++;
      this.#calls.set(call, {resolve, reject});
      this.#worker.postMessage({call, work, asked});
    });
  }

  #hear({call, answer, error, event}) {
    if (event?.missing) this.#complain('missing', `${event.missing} of ${this.count} photos are not searched: a part of the gallery is missing or of another version. Reload the page.`);
    if (event?.full) this.#complain('full', 'This browser keeps nothing for later: storage is full or forbidden. The search works while you are online.');
    if (event?.got) this.dispatchEvent(new CustomEvent('progress', {detail: event.got}));
    if (call === undefined) return;
    const {resolve, reject} = this.#calls.get(call);
    this.#calls.delete(call);
    if (error) reject(new Error(error));
    else resolve(answer);
  }

  #complain(kind, line) {
    if (this.#complaints[kind] === line) return;
    this.#complaints[kind] = line;
    this.dispatchEvent(new CustomEvent('complaint', {detail: line}));
  }
}

// What a worker runs until its script, the first that it is told, is there: meanwhile it keeps what is asked.
const FIRST = `const asked = [];
onmessage = async ({data}) => {
  if (asked.push(data) > 1) return;
  await import(data).catch(error => setTimeout(() => { throw error; }));  // as an error of the worker
  onmessage = null;
  for (const data of asked.slice(1)) dispatchEvent(new MessageEvent('message', {data}));
};`;

// `url` is the folder that `retrieval site` wrote, wherever it is served. The worker starts while the manifest comes.
export async function open(url) {
  const base = new URL(String(url).replace(/\/?$/, '/'), globalThis.document?.baseURI ?? import.meta.url).href;
  // From a blob it has the Content-Security-Policy of the page, and may come from another site.
  const address = URL.createObjectURL(new Blob([FIRST], {type: 'text/javascript'}));
  const worker = new Worker(address, {type: 'module'});
  worker.addEventListener('message', () => URL.revokeObjectURL(address), {once: true});
  const failed = new Promise(done => { worker.addEventListener('error', done, {once: true}); });
  try {
    const response = await fetch(new URL('manifest.json', base), {cache: 'no-cache'});
    if (!response.ok) throw new Error(`status ${response.status}`);
    const manifest = await response.json();
    if (manifest.format !== 2) throw new Error(`format ${manifest.format}`);
    const script = new URL(manifest.files.worker, base).href;
    worker.postMessage(script);
    const gallery = new Gallery(base, manifest, worker);
    failed.then(() => gallery.close(`${script} cannot be run. Reload the page.`));
    return gallery;
  } catch (error) {
    worker.terminate();
    throw new Error(`${base} is no gallery that can be searched (${error.message}). Write it with retrieval site, and serve it over HTTP.`);
  }
}
