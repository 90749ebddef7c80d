// The large view of a result: the original beside the query, what is known of it, and the way to the next one.

function makeLargeView(dialog, asked, describe, use, leave, vote, explain) {
  const image = dialog.querySelector('img'), about = dialog.querySelector('.about'), query = dialog.querySelector('canvas');
  let card = null, place = null;

  async function show(next) {
    card = next;
    const {id, digest} = card.dataset;
    explain(digest);
    place = {column: card.closest('.column')?.dataset.column ?? place.column, id};
    image.alt = card.dataset.name;
    image.onerror = () => { image.onerror = null; image.src = `thumbs/${digest}`; };
    image.src = `images/${digest}`;
    dialog.querySelector('.previous').disabled = !card.previousElementSibling;
    dialog.querySelector('.next').disabled = !card.nextElementSibling;
    if (!dialog.open) {
      [query.width, query.height] = [asked.width, asked.height];
      query.getContext('2d').drawImage(asked, 0, 0);
      dialog.showModal();
    }
    if (document.activeElement.disabled || !dialog.contains(document.activeElement)) dialog.focus();  // the keys go on
    const html = await describe(digest);
    if (card === next) about.innerHTML = html;
  }

  function step(sibling) {
    if (card && card[sibling]) show(card[sibling]);
  }

  dialog.querySelector('.previous').addEventListener('click', () => step('previousElementSibling'));
  dialog.querySelector('.next').addEventListener('click', () => step('nextElementSibling'));
  dialog.querySelector('.close').addEventListener('click', () => dialog.close());
  for (const button of dialog.querySelectorAll('.vote')) {
    button.addEventListener('click', () => { dialog.close(); vote(button.dataset.vote, card.dataset.digest); });
  }
  dialog.querySelector('.use').addEventListener('click', () => {
    dialog.close();
    use(card.dataset.digest);
  });
  dialog.addEventListener('click', event => { if (event.target === dialog) dialog.close(); });
  dialog.addEventListener('keydown', event => {
    if (event.key === 'ArrowLeft') step('previousElementSibling');
    else if (event.key === 'ArrowRight') step('nextElementSibling');
  });
  dialog.addEventListener('close', () => {
    image.removeAttribute('src');
    leave(place);  // answers may have replaced the card meanwhile
  });
  return show;
}
