// Serves the site when there is no network. What is under data/ never changes under its name; the rest may.

const CACHE = 'retrieval-site', SCOPE = self.registration.scope;

self.addEventListener('install', () => self.skipWaiting());
self.addEventListener('activate', event => event.waitUntil(Promise.all([
  self.clients.claim(), self.registration.navigationPreload?.enable()])));  // the page comes while this starts

async function keep(request, response) {
  if (response.ok && response.type === 'basic') {
    const copy = response.clone(), cache = await caches.open(CACHE);
    cache.put(request, copy).catch(() => {});  // full or forbidden: it is got again
  }
  return response;
}

async function answer(request, early) {
  const kept = () => caches.open(CACHE).then(cache => cache.match(request, {ignoreSearch: true}));
  if (request.url.startsWith(`${SCOPE}data/`)) return await kept() ?? keep(request, await fetch(request));
  try {
    return await keep(request, await early ?? await fetch(request));
  } catch (error) {
    const found = await kept();
    if (found) return found;
    throw error;
  }
}

self.addEventListener('fetch', event => {
  const {request} = event;
  if (request.method === 'GET' && request.url.startsWith(SCOPE)) event.respondWith(answer(request, event.preloadResponse));
});

// What the first visit has got before this ran.
self.addEventListener('message', ({data}) => caches.open(CACHE).then(async cache => {
  for (const url of data.keep) {
    if (url.startsWith(SCOPE) && !await cache.match(url)) await cache.add(url).catch(() => {});
  }
}));
