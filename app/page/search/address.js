// The address bar: a search can be opened again, and sent to others; the tabs keep their own part of it.

const OWN = /^(id|sent|text|mode|view|k|turn|box|prefix|cut|like|unlike)$|^column\./;
let written = '';  // the part of the address that is on show

const ownPart = params => [...params].filter(([name]) => OWN.test(name)).join('&');

function writeAddress(replace) {
  const fields = readRequest(), url = new URL(location), {searchParams} = url;
  for (const name of [...searchParams.keys()]) if (OWN.test(name)) searchParams.delete(name);
  if (fields.text) searchParams.set('text', fields.text);
  else if (fields.item === undefined) searchParams.set('sent', fields.sent);
  else searchParams.set('id', fields.item);
  searchParams.set('mode', fields.modes.join(','));
  if (view() === 'ladder') searchParams.set('view', 'ladder');
  searchParams.set('k', fields.k);
  if (fields.turn) searchParams.set('turn', fields.turn);
  if (fields.box.join() !== WHOLE) searchParams.set('box', fields.box.map(edge => edge.toFixed(3)).join());
  for (const kind of Object.keys(examples)) if (fields[kind]?.length) searchParams.set(kind, fields[kind].join());
  if (fields.prefix) searchParams.set('prefix', fields.prefix);
  if (fields.cut) searchParams.set('cut', fields.cut);
  for (const [name, value] of Object.entries(fields.columns || {})) searchParams.set(`column.${name}`, value);
  written = ownPart(searchParams);
  url.search = String(searchParams).replaceAll('%2C', ',');
  const same = url.href === location.href;
  history[replace || same ? 'replaceState' : 'pushState'](null, '', url);
}

function readAddress() {
  const asked = new URLSearchParams(location.search), part = ownPart(asked);
  if (part === written && part) return;  // another tab has been looked at meanwhile
  const id = asked.get('id'), sent = asked.get('sent'), text = asked.get('text');
  if (id === null && !text && !sent) {
    if (!asked.has('tab')) startAgain();
    return;
  }
  const named = (asked.get('mode') || '').split(','), [first, second] = named;
  if (first) {
    choose($$('.mode-of')[0], first);
    choose($$('.mode-of')[1], second);
    press(!second ? 'one' : asked.get('view') === 'ladder' ? 'ladder' : 'two');
  }
  if (/^\d+$/.test(asked.get('k'))) chooseCount(Number(asked.get('k')));
  setFilters(asked);
  const looked = {turn: Number(asked.get('turn')) || 0, box: asked.get('box')?.split(',').map(Number) || [0, 0, 1, 1]};
  for (const kind of Object.keys(examples)) examples[kind] = (asked.get(kind) || '').split(',').filter(each => /^\w+$/.test(each));
  const how = {replace: true, keep: true};
  const gone = $$('.mode-of').some((select, i) => named[i] && select.value !== named[i]);
  if (text) { $('.address').value = text; searchWords(text, how); }
  else if (id === null) searchSent(sent, looked, how);
  else searchItem(id, looked, how);
  if (gone) showComplaint('<p class="note">There is no such mode here as this address asks for: each column names its own.</p>');
}
