// What the tabs beside the search share: they begin when they are first seen, and say when nobody answers:
// then Gradio's answer is undefined.

const NO_ANSWER = '<p class="note error" role="alert">Can\'t reach the server. Try again.</p>';

function whenSeen(act) {
  const watch = new IntersectionObserver(entries => {
    if (!entries.some(entry => entry.isIntersecting)) return;
    watch.disconnect();
    act();
  });
  watch.observe(element);
}
