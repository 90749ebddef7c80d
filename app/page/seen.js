// What the tabs beside the search share: they begin when they are first seen, and say when nobody answers:
// then Gradio's answer is undefined. A button begins again.

const NO_ANSWER = '<p class="note error" role="alert">Can\'t reach the server. <button type="button" data-again>Try again</button></p>';

function whenSeen(act) {
  const watch = new IntersectionObserver(entries => {
    if (!entries.some(entry => entry.isIntersecting)) return;
    watch.disconnect();
    act();
  });
  watch.observe(element);
  element.addEventListener('click', event => { if (event.target.closest('[data-again]')) act(); });
}
