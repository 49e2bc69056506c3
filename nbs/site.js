// A table that is wider than its column shows its rows as cards; without this script it scrolls.
(() => {
  const fit = () => document.querySelectorAll('main.content table').forEach(table => {
    table.classList.remove('cards');
    const room = table.parentElement.clientWidth;
    if (room && table.offsetWidth > room && table.querySelector('[data-label]')) table.classList.add('cards');
  });
  let waiting;
  const later = () => { cancelAnimationFrame(waiting); waiting = requestAnimationFrame(fit); };
  addEventListener('resize', later);
  document.addEventListener('toggle', later, true); // a folded table has no width
  addEventListener('load', later);
  document.readyState === 'loading' ? document.addEventListener('DOMContentLoaded', fit) : fit();
})();
