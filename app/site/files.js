// Gets the files of the site, keeps them on this device where that is allowed, and unpacks what is packed.

const CACHE = 'retrieval-site';
const store = globalThis.caches?.open(CACHE).catch(() => null) ?? Promise.resolve(null);

export class Files {
  constructor(base, heard) {
    this.base = base;
    this.heard = heard;  // is told of bytes that came and of storage that is full
  }

  // The bytes of a file, which never changes under its name.
  async get(name) {
    const url = new URL(name, this.base).href, cache = await store;
    const kept = await cache?.match(url), response = kept ?? await fetch(url);
    if (!response.ok) throw new Error(`${url} answers ${response.status}.`);
    let bytes = new Uint8Array(await response.arrayBuffer());
    this.heard({got: name});
    // What is kept is unpacked already, and may begin like what is not.
    if (isPacked(bytes)) bytes = await unpack(bytes).catch(error => { if (kept) return bytes; throw error; });
    // Unpacked, which a later visit need not do again.
    const headers = {'Content-Type': response.headers.get('Content-Type') ?? ''};
    if (cache && !kept) cache.put(url, new Response(bytes, {headers})).catch(() => this.heard({full: true}));
    return bytes;
  }

  // Forget what earlier versions of the site had. A name may stand for all files `NAME-0.bin` and so on.
  async tidy(names) {
    const cache = await store, known = new Set(names.map(name => new URL(name, this.base).href));
    const data = new URL('data/', this.base).href, pictures = new URL('data/pictures/', this.base).href;
    for (const {url} of await cache?.keys() ?? []) {
      if (url.startsWith(data) && !url.startsWith(pictures) && !known.has(url.replace(/-\d+\.bin$/, ''))) await cache.delete(url);
    }
  }
}

const isPacked = bytes => bytes[0] === 0x1f && bytes[1] === 0x8b;  // a host may have unpacked it already

async function unpack(bytes) {
  const stream = new Blob([bytes]).stream().pipeThrough(new DecompressionStream('gzip'));
  return new Uint8Array(await new Response(stream).arrayBuffer());
}
