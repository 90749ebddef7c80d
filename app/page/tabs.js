// The tabs in the address bar, and the link that skips to the results.

const chosen = () => new URLSearchParams(location.search).get('tab') || 'search';
const tabs = () => [...document.querySelectorAll('[role="tab"]')];

function openTab(name) {
  const tab = tabs().find(each => each.dataset.tabId === name);
  if (tab && tab.getAttribute('aria-selected') !== 'true') tab.click();
}

document.addEventListener('click', event => {
  const tab = event.target.closest?.('[role="tab"]'), folded = event.target.closest?.('.overflow-dropdown button');
  const name = tab?.dataset.tabId || tabs().find(each => each.textContent === folded?.textContent)?.dataset.tabId;
  if (!name || name === chosen()) return;
  const url = new URL(location);
  url.searchParams.delete('tab');
  if (name !== 'search') url.searchParams.set('tab', name);
  history.pushState(null, '', url);
});

// A link within the page leads to another search or tab without loading it again.
document.addEventListener('click', event => {
  const link = event.target.closest?.('a[href^="?"]');
  if (!link || event.ctrlKey || event.metaKey || event.shiftKey) return;
  event.preventDefault();
  history.pushState(null, '', link.href);
  dispatchEvent(new PopStateEvent('popstate'));
});

addEventListener('popstate', () => openTab(chosen()));
element.querySelector('.skip').addEventListener('click', event => {
  event.preventDefault();
  const seen = selector => [...document.querySelectorAll(selector)].find(each => each.checkVisibility());
  (seen('#first .hit') || seen('.search .file') || seen('.tab :is(button, a, input)'))?.focus();
});

const waiting = setInterval(() => {  // the tabs are drawn after this
  if (!tabs().length) return;
  clearInterval(waiting);
  rove(tabs());
  openTab(chosen());
}, 20);
