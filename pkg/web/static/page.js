'use strict';
// Keeps the page as the stream says. All that comes from outside is put in as text, never as HTML.
(() => {
  const points = 60;
  const late = 10000; // ms without news
  const svg = 'http://www.w3.org/2000/svg';
  const find = id => document.getElementById(id);
  const say = (node, text) => { if (node.textContent !== text) node.textContent = text; };
  const dress = (node, name) => { if (node.className !== name) node.className = name; };

  // sync makes the children of parent that have a key be those of the list, in its order.
  function sync(parent, list, tag, fill) {
    const old = new Map();
    let at = null;
    for (const node of parent.children) {
      if (node.dataset.key === undefined) continue;
      at ??= node;
      old.set(node.dataset.key, node);
    }
    for (const item of list ?? []) {
      let node = old.get(item.k);
      if (node) {
        old.delete(item.k);
      } else {
        node = document.createElement(tag);
        node.dataset.key = item.k;
      }
      if (node === at) at = at.nextElementSibling;
      else parent.insertBefore(node, at);
      fill(node, item);
    }
    for (const node of old.values()) node.remove();
  }

  // cells makes the cells of a row: one for all columns, or one for each.
  function cells(tr, count, heads) {
    tr.replaceChildren();
    for (let n = 0; n < count; n++) {
      const head = heads[n];
      const cell = document.createElement(n === 0 && count > 1 ? 'th' : 'td');
      if (count === 1) {
        cell.colSpan = heads.length;
      } else {
        cell.className = head.className;
        if (n === 0) cell.scope = 'row';
        else cell.dataset.label = head.textContent;
      }
      tr.append(cell);
    }
  }

  function table(section, data) {
    const body = section.querySelector('table');
    const heads = body.tHead.rows[0].cells;
    const steps = Math.min(points, data.samples - Number(section.dataset.samples));
    section.dataset.samples = data.samples;
    section.hidden = !data.groups && !data.note;
    say(section.querySelector('.told'), data.note);
    sync(body, data.groups, 'tbody', (tbody, group) => {
      dress(tbody, group.c);
      sync(tbody, group.r, 'tr', (tr, row) => {
        dress(tr, row.c);
        if (tr.cells.length !== row.t.length) cells(tr, row.t.length, heads);
        row.t.forEach((text, n) => { if (heads[n].className !== 'curve' || row.t.length === 1) say(tr.cells[n], text); });
        if (row.v !== undefined) {
          const curve = curveOf(tr);
          for (let n = 0; n < steps; n++) curve.push(row.v);
          curve.splice(0, curve.length - points);
        }
      });
      draw(tbody);
    });
  }

  // curveOf is the packets per second of a row, the oldest first.
  function curveOf(tr) {
    if (!tr.curve) {
      const known = tr.lastElementChild.dataset.curve;
      tr.curve = known ? known.split(' ').map(Number) : Array(points).fill(0);
    }
    return tr.curve;
  }

  // draw draws the curves of a service: its own by itself, those of its real servers by one measure.
  function draw(tbody) {
    let top = 1;
    const rows = [...tbody.rows].filter(tr => tr.lastElementChild?.className === 'curve');
    for (const tr of rows.slice(1)) top = Math.max(top, ...curveOf(tr));
    rows.forEach((tr, n) => {
      const curve = curveOf(tr);
      const high = n === 0 ? Math.max(1, ...curve) : top;
      let path = `M0 ${15 - 14 * curve[0] / high}`;
      for (let x = 1; x < points; x++) path += `L${x} ${(15 - 14 * curve[x] / high).toFixed(1)}`;
      const cell = tr.lastElementChild;
      if (!cell.firstElementChild) {
        const root = document.createElementNS(svg, 'svg');
        root.setAttribute('viewBox', `0 0 ${points - 1} 16`);
        root.setAttribute('preserveAspectRatio', 'none');
        root.setAttribute('aria-hidden', 'true');
        root.append(document.createElementNS(svg, 'path'), document.createElementNS(svg, 'path'));
        cell.append(root);
      }
      const [area, stroke] = cell.firstElementChild.children;
      if (stroke.getAttribute('d') !== path) {
        stroke.setAttribute('d', path);
        area.setAttribute('d', `${path}L${points - 1} 16L0 16Z`);
      }
    });
  }

  function list(parent, items, tag, fill) {
    while (parent.children.length > items.length) parent.lastElementChild.remove();
    while (parent.children.length < items.length) parent.append(document.createElement(tag));
    items.forEach((item, n) => fill(parent.children[n], item));
  }

  function head(data) {
    say(find('name'), data.name);
    say(find('state'), data.state);
    dress(find('state'), data.level);
    say(find('at'), data.at);
    document.title = `${data.name}: ${data.state}`;
    list(find('warnings'), data.warnings, 'li', (li, warning) => { dress(li, warning.c); say(li, warning.t); });
    list(find('facts'), data.facts, 'div', (div, fact) => {
      if (!div.children.length) div.append(document.createElement('dt'), document.createElement('dd'));
      dress(div, fact.c);
      say(div.children[0], fact.k);
      say(div.children[1], fact.t);
    });
  }

  let heard = 0;
  function tell(live) {
    document.body.classList.toggle('stale', !live);
    say(find('stream'), live ? 'live' : 'NOT LIVE: as it was then; trying again');
  }

  function listen() {
    const source = new EventSource('live' + location.search);
    const on = (name, fill) => source.addEventListener(name, e => {
      heard = Date.now();
      fill(JSON.parse(e.data));
      tell(true);
    });
    on('head', head);
    for (const section of document.querySelectorAll('main section')) on(section.id, data => table(section, data));
    source.addEventListener('error', () => {
      tell(false);
      if (source.readyState === EventSource.CLOSED) setTimeout(listen, 5000); // refused: the browser doesn't try again
    });
  }

  for (const tbody of document.querySelectorAll('#services tbody')) draw(tbody);
  listen();
  setInterval(() => { if (Date.now() - heard > late) tell(false); }, 1000);
})();
