// The report: asked for when it is first seen, and again until all of it is measured.

async function load() {
  const answer = await server.report({}) ?? {html: NO_ANSWER};
  element.querySelector('.body').innerHTML = answer.html;
  if (answer.waiting) setTimeout(load, 500);
}

whenSeen(load);
