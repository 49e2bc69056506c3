// The search of the site: an entry is found when it has every word of the query, in any order; titles count most.
// The site builder asks for `Fuse`, whose fuzzy match misses words in another order and finds letters far apart.
window.Fuse = class {
  static plain(text) { return (text || '').normalize('NFKD').replace(/\p{M}/gu, '').toLowerCase().replace(/[^\p{L}\p{N}]+/gu, ' ').trim(); }
  constructor(index) {
    this.entries = index.map(item => ({ item, parts: [[8, item.title], [5, item.section], [1, item.text]].map(([w, t]) => [w, ' ' + window.Fuse.plain(t)]) }));
  }
  search(query, { limit = 20 } = {}) {
    const words = window.Fuse.plain(query).split(' ').filter(Boolean);
    const score = e => words.reduce((sum, word) => {
      const found = Math.max(...e.parts.map(([w, t]) => t.includes(' ' + word) ? 2 * w : t.includes(word) ? w : 0));
      return found && sum !== null ? sum + found : null;
    }, 0);
    return this.entries.map(e => [score(e), e]).filter(([s]) => s).sort((a, b) => b[0] - a[0]).slice(0, limit).map(([, e]) => ({ item: e.item }));
  }
};
