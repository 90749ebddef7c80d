// Search with a photo, in any page: <script src="https://HOST/widget.js"></script> shows it where it stands.
// data-k is the number of results, data-where a filter as in the API, data-label what stands on it.
(() => {
  const script = document.currentScript, api = new URL('.', script.src);
  const {k = '12', where = '', label = 'Search with a photo'} = script.dataset, LARGE = 400_000, LONGEST = 1024;
  const make = (name, props, ...children) => {
    const made = Object.assign(document.createElement(name), props);
    made.append(...children);
    return made;
  };

  const sheet = new CSSStyleSheet();
  sheet.replaceSync(`
    section { all: initial; display: block; color: inherit; font-family: inherit; font-size: 16px; line-height: 1.4; }
    section * { box-sizing: border-box; }
    label { position: relative; display: flex; align-items: center; justify-content: center; gap: 16px; min-height: 96px;
      padding: 16px; border: 2px dashed; border-radius: 12px; text-align: center; cursor: pointer; }
    label.over { border-style: solid; }
    label:focus-within, a:focus-visible { outline: 3px solid; outline-offset: 3px; }
    input { position: absolute; width: 1px; height: 1px; opacity: 0; }
    strong, span { display: block; }
    label img { width: 64px; height: 64px; border-radius: 8px; object-fit: cover; }
    p { min-height: 1.4em; margin: 8px 0; }
    ul { display: grid; grid-template-columns: repeat(auto-fill, minmax(140px, 1fr)); gap: 16px; margin: 0; padding: 0; list-style: none; }
    li > * { display: block; color: inherit; text-decoration: none; border-radius: 8px; }
    li img { display: block; width: 100%; aspect-ratio: 1; margin-bottom: 6px; border-radius: 8px; object-fit: cover; }
    li { min-width: 0; overflow-wrap: anywhere; }
    a strong { text-decoration: underline; }`);
  const input = make('input', {type: 'file', accept: 'image/*'}), seen = make('img', {alt: '', hidden: true});
  const drop = make('label', {part: 'drop'}, input, seen, make('span', {}, make('strong', {textContent: label}),
    make('span', {textContent: 'Drop a photo here, or choose one.'})));
  const status = make('p', {role: 'status'}), list = make('ul', {part: 'results'});
  const section = make('section', {ariaLabel: label}, drop, status, list);
  const host = document.createElement('retrieval-search'), root = host.attachShadow({mode: 'open'});
  host.style.display = 'block';
  root.adoptedStyleSheets = [sheet];
  root.append(section);
  script.after(host);

  // A large photo is made smaller before it travels. What cannot be drawn here goes as it is.
  async function shrink(file) {
    const drawn = file.size < LARGE || file.type !== 'image/jpeg' ? null : await createImageBitmap(file).catch(() => null);
    const scale = drawn && LONGEST / Math.max(drawn.width, drawn.height);
    if (!scale || scale >= 1) {
      drawn?.close();
      return file;
    }
    const canvas = make('canvas', {width: Math.round(drawn.width * scale), height: Math.round(drawn.height * scale)});
    const pen = canvas.getContext('2d');
    pen.imageSmoothingQuality = 'high';
    pen.drawImage(drawn, 0, 0, canvas.width, canvas.height);
    drawn.close();
    return await new Promise(done => canvas.toBlob(done, 'image/jpeg', 0.9)) ?? file;
  }

  async function ask(file) {
    const body = new FormData();
    body.append('image', await shrink(file), 'photo');
    const address = new URL(`search?${new URLSearchParams({k, where})}`, api);
    try {
      const response = await fetch(address, {method: 'POST', body, credentials: 'omit'});
      const answer = await response.json();
      if (response.ok) return answer;
      console.warn(answer.detail);
      return {detail: [400, 413, 415].includes(response.status) ? answer.detail : 'The search does not work just now.'};
    } catch {
      return {detail: 'The search cannot be reached. Try again later.'};
    }
  }

  function card({thumbnail, name, title, caption, link}) {
    const about = [make('img', {src: new URL(thumbnail, api), alt: '', loading: 'lazy'}), make('strong', {textContent: title ?? name})];
    if (caption) about.push(make('span', {textContent: caption}));
    return make('li', {part: 'result'}, link ? make('a', {href: link}, ...about) : make('div', {}, ...about));
  }

  let serial = 0;
  async function search(file) {
    const mine = ++serial;
    URL.revokeObjectURL(seen.src);
    Object.assign(seen, {src: URL.createObjectURL(file), hidden: false});
    status.textContent = 'Searching…';
    section.ariaBusy = true;
    const {results, detail} = await ask(file);
    if (mine !== serial) return;  // a later photo has overtaken it
    section.ariaBusy = false;
    status.textContent = results ? `${results.length} results` : detail;
    if (results) list.replaceChildren(...results.map(card));
  }

  const take = (event, {files} = {}) => {
    const photo = [...files ?? []].find(each => each.type.startsWith('image/') || /\.hei[cf]$/i.test(each.name));
    if (!photo) {
      if (files?.length) status.textContent = 'This is no photo.';
      return;
    }
    event.preventDefault();
    search(photo);
  };
  input.addEventListener('change', event => { take(event, input); input.value = ''; });
  section.addEventListener('paste', event => take(event, event.clipboardData));
  for (const kind of ['dragover', 'dragleave', 'drop']) {
    drop.addEventListener(kind, event => {
      event.preventDefault();
      drop.classList.toggle('over', kind === 'dragover');
      if (kind === 'drop') take(event, event.dataTransfer);
    });
  }
})();
