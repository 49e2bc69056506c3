// A table that is wider than its column scrolls in a box of its own; on a phone a long one shows its rows as cards.
(() => {
  const heading = el => el.closest('section')?.querySelector('h2, h3, h4')?.textContent.trim() || document.title;
  const short = table => [...table.rows].every(r => r.cells.length <= 6 && [...r.cells].every(c => c.textContent.trim().length <= 24));
  const boxed = table => {
    if (table.parentElement.classList.contains('wide-table')) return table.parentElement;
    const box = document.createElement('div');
    table.before(box);
    box.append(table);
    return box;
  };
  const scroll = (table, box) => {
    box.classList.add('scrolls');
    if (innerWidth >= 992) box.classList.add('page-wide'); // over the contents, which step aside
    if (box.scrollWidth <= box.clientWidth + 1) return;
    for (const [k, v] of [['tabindex', 0], ['role', 'region'], ['aria-label', `Table, scrolls sideways: ${heading(table)}`]]) box.setAttribute(k, v);
    const first = table.rows[table.rows.length - 1]?.cells[0];
    if (first && !table.querySelector('[rowspan]:not([rowspan="1"])') && first.offsetWidth < .4 * box.clientWidth) box.classList.add('sticky');
  };
  const fit = () => document.querySelectorAll('main.content table').forEach(table => {
    const box = boxed(table);
    table.classList.remove('cards');
    box.className = 'wide-table';
    for (const k of ['tabindex', 'role', 'aria-label']) box.removeAttribute(k);
    const room = box.clientWidth;
    if (!room || table.offsetWidth <= room) return;
    if (innerWidth < 700 && table.querySelector('[data-label]') && !short(table)) table.classList.add('cards');
    else scroll(table, box);
  });
  const aside = () => { // no contents over a wide table
    const panel = document.querySelector('#quarto-margin-sidebar'), at = panel?.getBoundingClientRect();
    if (!panel || !document.querySelector('.page-wide') && !panel.dataset.wide) return;
    const over = [...document.querySelectorAll('.page-wide')].map(b => b.getBoundingClientRect());
    panel.dataset.wide = 1;
    panel.classList.toggle('sd-overlapped', over.some(b => b.width && b.right > at.left && b.top < at.bottom && at.top < b.bottom));
  };
  let waiting, moving;
  const later = () => { cancelAnimationFrame(waiting); waiting = requestAnimationFrame(() => { fit(); aside(); }); };
  addEventListener('scroll', () => { cancelAnimationFrame(moving); moving = requestAnimationFrame(aside); }, { passive: true });
  addEventListener('resize', later);
  document.addEventListener('toggle', later, true); // a folded table has no width
  addEventListener('load', later);
  document.readyState === 'loading' ? document.addEventListener('DOMContentLoaded', fit) : fit();
})();
