// The search of the site: an entry is found by the words of the query, in any order; titles count most, code least, two entries a page.
// A word of the glossary comes before all. Among equals a walk comes first, then pages for readers, then the library; a page's top before its sections.
// The site builder asks for `Fuse`, whose fuzzy match misses words in another order and finds letters far apart.
window.Fuse = class {
  static plain(text) { return (text || '').normalize('NFKD').replace(/\p{M}/gu, '').toLowerCase().replace(/[^\p{L}\p{N}]+/gu, ' ').trim(); }
  static shelf(item) {
    const [page, part] = item.href.split('#');
    const kind = /_walk\.html$/.test(page) ? 0 : /(papers\/(\w+)\/\2_|howto|tutorials|explain|leaderboard\/leaderboard|index|start)/.test(page) ? 2 : 4;
    return (/_records\.html$/.test(page) ? 3 : kind) + (part ? .5 : 0);
  }
  constructor(index) {
    this.entries = index.map(item => ({ item, parts: [[8, item.title], [/glossary\.html$/.test(item.href) && item.section ? 20 : 5, item.section], [1, item.text], [.1, item.code]].map(([w, t]) => [w, ' ' + window.Fuse.plain(t)]) }));
  }
  search(query, { limit = 20 } = {}) {
    const words = window.Fuse.plain(query).split(' ').filter(Boolean), seen = {};
    const scored = this.entries.map(e => {
      const each = words.map(word => Math.max(...e.parts.map(([w, t]) => t.includes(' ' + word) ? 2 * w : t.includes(word) ? w : 0)));
      return [each.filter(Boolean).length, each.reduce((a, b) => a + b, 0), e.item];
    });
    const most = Math.max(0, ...scored.map(([n]) => n)); // all words where an entry has them all, else as many as any has
    return scored.filter(([n]) => n && n === most).sort((a, b) => b[1] - a[1] || window.Fuse.shelf(a[2]) - window.Fuse.shelf(b[2]))
      .filter(([, , item]) => (seen[item.title] = (seen[item.title] || 0) + 1) < 3).slice(0, limit).map(([, , item]) => ({ item }));
  }
};
