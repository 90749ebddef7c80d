// The help of the API: says where this server is, and copies its lines.

const here = new URL('.', location.href.split('?')[0]).href.replace(/\/$/, '');
element.innerHTML = element.innerHTML.replaceAll('PAGE-ADDRESS', here);

element.addEventListener('click', async event => {
  const button = event.target.closest('.copy');
  if (!button) return;
  const code = button.parentElement.querySelector('code');
  if (navigator.clipboard) {
    await navigator.clipboard.writeText(code.textContent);
    button.textContent = 'Copied';
    setTimeout(() => { button.textContent = 'Copy'; }, 1500);
  } else getSelection().selectAllChildren(code);  // not over plain http: there one copies what is selected
});
