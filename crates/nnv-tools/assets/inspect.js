// Draws the report of `nnv inspect` from the data in the page. Needs uPlot.
'use strict';
(() => {
  const data = JSON.parse(document.getElementById('data').textContent);
  const frames = data.frames;
  const $ = (id) => document.getElementById(id);
  const node = (tag, text, attributes = {}) => {
    const made = Object.assign(document.createElement(tag), attributes);
    if (text !== undefined) made.textContent = text;
    return made;
  };
  const style = (name) => getComputedStyle(document.documentElement).getPropertyValue(name).trim();
  const dark = matchMedia('(prefers-color-scheme: dark)');

  // Okabe and Ito's colours, told apart by everybody. Order of `parts` in the data.
  const parts = [
    ['Headers', '#999999'], ['Quantizer map', '#f0e442'], ['Ink', '#cc79a7'],
    ['Motion', '#e69f00'], ['Hyper-latent', '#009e73'], ['Latent', '#0072b2'],
  ];
  const [BLUE, ORANGE, GREEN, RED] = ['#0072b2', '#e69f00', '#009e73', '#d55e00'];
  const SKY = '#56b4e9';
  const modes = [['first reference', SKY], ['second reference', ORANGE], ['both', GREEN]];
  const number = (v, digits = 0) => v.toLocaleString('en', { maximumFractionDigits: digits });

  // ------------------------------------------------------------------ head
  const rate = data.rate ? data.rate[0] / data.rate[1] : null;
  const total = frames.reduce((sum, f) => sum + f.bytes, 0);
  const keys = frames.filter((f) => f.kind === 'key').length;
  document.title = data.file + ' – NNV stream';
  $('title').textContent = data.file;
  $('summary').textContent = [
    `${data.width}×${data.height}`, `${data.bit_depth} bit`,
    rate ? `${number(rate, 3)} frames/s` : 'no frame rate',
    `bundle ${data.bundle}`, `${frames.length} frames (${keys} key)`,
    `${number(data.bytes)} bytes`,
    rate ? `${number(total * 8 * rate / frames.length / 1000, 1)} kbit/s` : '',
    data.lost ? `${data.lost} frames could not be shown` : '',
  ].filter(Boolean).join(' · ');
  $('made').textContent = `Made by nnv ${data.version} in ${number(data.seconds, 1)} s.`
    + (data.without_pictures
      ? ` ${data.without_pictures} frames are without pictures, so that the page stays small: nnv inspect --frames chooses others.`
      : '');

  // ------------------------------------------------------------------ charts
  let chosen = 0;
  const xs = frames.map((_, i) => i);
  const charts = [];
  const sync = uPlot.sync('frames');

  const marker = {
    hooks: {
      draw: [(u) => {
        const x = Math.round(u.valToPos(chosen, 'x', true));
        if (x < u.bbox.left || x > u.bbox.left + u.bbox.width) return;
        u.ctx.save();
        u.ctx.strokeStyle = style('--text');
        u.ctx.setLineDash([4 * devicePixelRatio, 3 * devicePixelRatio]);
        u.ctx.lineWidth = devicePixelRatio;
        u.ctx.beginPath();
        u.ctx.moveTo(x, u.bbox.top);
        u.ctx.lineTo(x, u.bbox.top + u.bbox.height);
        u.ctx.stroke();
        u.ctx.restore();
      }],
      ready: [(u) => {
        let from = null;
        u.over.addEventListener('mousedown', (e) => { from = e.clientX; });
        u.over.addEventListener('click', (e) => {
          if (from !== null && Math.abs(e.clientX - from) < 4) {
            const x = e.clientX - u.over.getBoundingClientRect().left;
            choose(Math.round(u.posToVal(x, 'x')));
          }
        });
      }],
    },
  };

  const arcs = {
    hooks: {
      drawSeries: [(u, series) => {
        if (series !== 1) return;
        const { ctx, bbox } = u;
        const [min, max] = [u.scales.x.min, u.scales.x.max];
        const all = max - min <= 200;
        ctx.save();
        ctx.beginPath();
        ctx.rect(bbox.left, bbox.top, bbox.width, bbox.height);
        ctx.clip();
        for (let i = Math.max(0, Math.floor(min)); i <= Math.min(frames.length - 1, max); i++) {
          if (!all && i !== chosen) continue;
          const x1 = u.valToPos(i, 'x', true);
          const y1 = u.valToPos(frames[i].level, 'y', true);
          frames[i].references.forEach((r, n) => {
            const x0 = u.valToPos(r, 'x', true);
            const y0 = u.valToPos(frames[r].level, 'y', true);
            const lift = Math.min(0.45 * Math.abs(x1 - x0), 0.3 * bbox.height);
            ctx.strokeStyle = n ? ORANGE : dark.matches ? SKY : BLUE;
            ctx.setLineDash(n ? [5 * devicePixelRatio, 3 * devicePixelRatio] : []);
            ctx.globalAlpha = i === chosen ? 1 : 0.45;
            ctx.lineWidth = (i === chosen ? 2.5 : 1) * devicePixelRatio;
            ctx.beginPath();
            ctx.moveTo(x0, y0);
            ctx.quadraticCurveTo((x0 + x1) / 2, Math.min(y0, y1) - lift, x1, y1);
            ctx.stroke();
          });
        }
        ctx.restore();
      }],
    },
  };

  const axis = (more = {}) => ({
    stroke: () => style('--weak'), grid: { stroke: () => style('--line'), width: 1 },
    ticks: { stroke: () => style('--line') }, font: '12px system-ui, sans-serif', ...more,
  });
  const whole = (u, values) => values.map((v) => (Number.isInteger(v) ? number(v) : ''));

  function chart(title, height, series, options = {}, legend = true) {
    const holder = node('div', undefined, { className: 'chart' });
    holder.append(node('h3', title));
    if (legend) {
      const list = node('ul', undefined, { className: 'keys' });
      for (const s of [...series].reverse()) {
        const item = node('li');
        const swatch = node('i');
        swatch.style.background = s.colour;
        item.append(swatch, s.label);
        list.append(item);
      }
      holder.append(list);
    }
    $('charts').append(holder);
    const u = new uPlot({
      width: holder.clientWidth, height,
      legend: { show: false },
      cursor: { sync: { key: sync.key }, y: false, drag: { x: true, y: false }, points: { size: 7 } },
      scales: { x: { time: false, range: (u, min, max) => (max > min ? [min - 0.5, max + 0.5] : [min - 1, max + 1]) }, ...(options.scales || {}) },
      axes: [axis({ values: whole }), axis({ size: 58, ...(options.axis || {}) })],
      series: [{}, ...series.map(({ colour, label, data: _, ...more }) => ({
        label, stroke: colour, width: 1.5, spanGaps: false,
        points: { show: frames.length <= 120, size: 5, fill: colour }, ...more,
      }))],
      plugins: [marker, ...(options.plugins || [])],
    }, [xs, ...series.map((s) => s.data)], holder);
    u.root.setAttribute('role', 'img');
    u.root.setAttribute('aria-label', title);
    charts.push([u, holder]);
    return u;
  }

  const present = parts.map((p, i) => [...p, i]).filter(([, , i]) => frames.some((f) => f.parts[i]));
  const bars = uPlot.paths.bars({ size: [0.85, 40], gap: 0 });
  const stacked = present.map(([label, colour], n) => ({
    label, colour, fill: colour, width: 0, paths: bars, points: { show: false },
    data: frames.map((f) => present.slice(0, n + 1).reduce((sum, [, , i]) => sum + f.parts[i], 0)),
  })).reverse();
  chart('Bytes by frame', 200, stacked, { scales: { y: { range: (u, min, max) => [0, max * 1.05 || 1] } } });
  const deepest = Math.max(1, ...frames.map((f) => f.level));
  chart('Levels and references (line: first, dashed: second)', 170, [{
    label: 'level', colour: RED, width: 0, data: frames.map((f) => f.level),
    points: { show: true, size: 6, fill: RED },
  }], {
    plugins: [arcs], axis: { values: whole },
    scales: { y: { range: [-0.4, deepest + 1.2] } },
  }, false);
  chart('Quantizer', 110, [{
    label: 'quantizer', colour: dark.matches ? SKY : BLUE,
    data: frames.map((f) => (f.kind === 'repeat' ? null : f.quantizer)), paths: uPlot.paths.stepped({ align: 1 }),
  }], { axis: { values: whole } }, false);
  if (frames.some((f) => f.psnr)) {
    chart('PSNR in dB', 150, [
      { label: 'V', colour: ORANGE, data: frames.map((f) => f.psnr && f.psnr[2]) },
      { label: 'U', colour: GREEN, data: frames.map((f) => f.psnr && f.psnr[1]) },
      { label: 'Y', colour: dark.matches ? SKY : BLUE, width: 2.5, data: frames.map((f) => f.psnr && f.psnr[0]) },
    ]);
  }
  if (data.buffer) {
    chart(`Decoder's buffer at ${number(data.buffer.kbit)} kbit/s, ${number(data.buffer.ms)} ms, in order of decoding (%; below zero it ran empty)`, 130, [{
      label: 'fullness', colour: RED, data: data.buffer.fullness.map((v) => 100 * v),
    }], {}, false);
  }
  new ResizeObserver(() => {
    for (const [u, holder] of charts) {
      if (holder.clientWidth !== u.width) u.setSize({ width: holder.clientWidth, height: u.height });
    }
  }).observe($('charts'));
  dark.addEventListener('change', () => { charts.forEach(([u]) => u.redraw(false)); show(); });

  // ------------------------------------------------------------------ one frame
  const slider = $('slider');
  slider.max = frames.length - 1;
  let planes = null; // of the frame chosen, once inflated
  let turn = 0;
  let why = { motion: '', map: '' }; // nothing is drawn there

  async function inflate(text) {
    const packed = Uint8Array.from(atob(text), (c) => c.charCodeAt(0));
    const stream = new Blob([packed]).stream().pipeThrough(new DecompressionStream('deflate'));
    return new DataView(await new Response(stream).arrayBuffer());
  }

  /** Numbers by place, as nnv-tools/src/inspect/planes.rs writes them. */
  function take(view, layout) {
    let at = 0;
    const next = (count, size, read) => {
      const out = new Array(count);
      for (let i = 0; i < count; i++, at += size) out[i] = read(at);
      return out;
    };
    const u8 = (a) => view.getUint8(a);
    const i8 = (a) => view.getInt8(a);
    const u16 = (a) => view.getUint16(a, true);
    const i16 = (a) => view.getInt16(a, true);
    const cells = layout.columns * layout.rows;
    const places = layout.across * layout.down;
    const out = { layout, mode: next(cells, 1, u8) };
    out.vectors = [0, 1].map(() => {
      const x = next(cells, 2, i16);
      return [x, next(cells, 2, i16)];
    });
    for (const name of ['latent', 'motion', 'hyper', 'inked']) {
      out[name] = next(places, 2, u16).map((v) => v / 8);
    }
    out.map = layout.map ? next(places, 1, i8) : null;
    out.ink = layout.ink ? next(4 * places, 1, u8) : null;
    return out;
  }

  const image = (id, text, why) => {
    const img = $(id);
    img.parentNode.classList.toggle('none', !text);
    img.parentNode.dataset.why = why;
    img.width = data.width;
    img.height = data.height;
    img.src = text ? 'data:image/jpeg;base64,' + text
      : 'data:image/gif;base64,R0lGODlhAQABAAAAACH5BAEKAAEALAAAAAABAAEAAAICTAEAOw==';
  };

  function choose(i) {
    chosen = Math.max(0, Math.min(frames.length - 1, i));
    slider.value = chosen;
    history.replaceState(null, '', '#frame=' + chosen);
    charts.forEach(([u]) => u.redraw(false));
    show();
  }

  async function show() {
    const mine = ++turn;
    const f = frames[chosen];
    const shown = data.pictures[chosen];
    const name = f.kind === 'key' ? 'key frame' : f.kind === 'repeat' ? 'repeat' : 'inter frame';
    $('number').textContent = chosen;
    $('facts').textContent = [
      name, f.kind === 'repeat' ? '' : `level ${f.level}, quantizer ${f.quantizer}`,
      `${number(f.bytes)} bytes`,
      f.references.length ? `refers to ${f.references.join(' and ')}` : '',
      f.psnr ? `PSNR Y ${number(f.psnr[0], 2)}, U ${number(f.psnr[1], 2)}, V ${number(f.psnr[2], 2)} dB` : '',
      f.verified === true ? 'checksum right' : f.verified === false ? 'CHECKSUM WRONG' : '',
      f.concealed ? 'CONCEALED' : '', `decoded as number ${f.order}`,
    ].filter(Boolean).join(' · ');
    $('place').textContent = '';
    const without = f.kind === 'repeat' ? 'It repeats the picture before it'
      : 'No picture of this frame is in the page';
    const key = shown && !shown.prediction ? 'A key frame is predicted from nothing' : without;
    image('picture', shown && shown.picture, without);
    image('prediction', shown && shown.prediction, key);
    image('added', shown && shown.added, key);
    bits(f);
    planes = null;
    const fresh = shown ? take(await inflate(shown.planes), shown.layout) : null;
    if (mine !== turn) return;
    planes = fresh;
    await $('picture').decode().catch(() => {});
    if (mine !== turn) return;
    why = { motion: key, map: without };
    drawMotion();
    listMaps();
    drawMap();
    document.body.dataset.frame = chosen; // all of it is drawn
  }

  /** A canvas as sharp as the screen, in samples of the coded picture. */
  function canvas(id, none) {
    const c = $(id);
    c.parentNode.classList.toggle('none', !!none);
    c.parentNode.dataset.why = none || '';
    const width = Math.max(1, Math.round(c.parentNode.clientWidth * devicePixelRatio));
    c.width = width;
    c.height = Math.round((width * data.height) / data.width);
    const ctx = c.getContext('2d');
    const scale = width / data.width;
    const ground = (alpha) => {
      ctx.filter = 'grayscale(1)';
      ctx.drawImage($('picture'), 0, 0, c.width, c.height);
      ctx.filter = 'none';
      ctx.fillStyle = dark.matches ? `rgba(0,0,0,${alpha})` : `rgba(255,255,255,${alpha})`;
      ctx.fillRect(0, 0, c.width, c.height);
      ctx.setTransform(scale, 0, 0, scale, -data.left * scale, -data.top * scale);
    };
    return { c, ctx, scale, ground };
  }

  function drawMotion() {
    const some = planes && planes.layout.columns > 0;
    const { ctx, scale, ground } = canvas('motion', some ? '' : why.motion);
    $('motion-scale').textContent = $('motion-legend').textContent = '';
    if (!some) return;
    ground(0.55);
    const { columns, rows, cell } = planes.layout;
    // One arrow for each block of 16×16 whose cells agree, else one for each cell.
    const arrows = [];
    const same = (a, b) => planes.mode[a] === planes.mode[b]
      && planes.vectors.every(([x, y]) => x[a] === x[b] && y[a] === y[b]);
    const add = (i, x, y, size) => [0, 1].forEach((n) => {
      const mode = planes.mode[i];
      if (mode !== 2 && mode !== n) return;
      arrows.push([x, y, planes.vectors[n][0][i] / 4, planes.vectors[n][1][i] / 4, mode, size, n]);
    });
    const step = cell === 8 ? 2 : 1;
    for (let y = 0; y < rows; y += step) {
      for (let x = 0; x < columns; x += step) {
        const i = y * columns + x;
        const four = step === 2 ? [i, i + 1, i + columns, i + columns + 1] : [i];
        if (four.every((j) => same(i, j))) add(i, x * cell + 8, y * cell + 8, 16);
        else four.forEach((j, n) => add(j, (x + (n & 1)) * 8 + 4, (y + (n >> 1)) * 8 + 4, 8));
      }
    }
    const lengths = arrows.map((a) => Math.hypot(a[2], a[3])).sort((a, b) => a - b);
    const longest = lengths[lengths.length - 1] || 0;
    const usual = lengths[Math.floor(lengths.length * 0.95)] || longest || 1;
    // Small motion is drawn longer, so that it is seen.
    const gain = Math.max(1, Math.min(16, 2 ** Math.floor(Math.log2(20 / usual))));
    const counts = [0, 0, 0];
    for (const [x, y, dx, dy, mode, size, n] of arrows) {
      counts[mode]++;
      ctx.strokeStyle = ctx.fillStyle = modes[mode][1];
      ctx.lineWidth = Math.max(1.2 / scale, 1.1);
      if (dx === 0 && dy === 0) {
        ctx.fillRect(x - 0.8, y - 0.8, 1.6, 1.6);
        continue;
      }
      const [ex, ey] = [x + dx * gain, y + dy * gain];
      ctx.beginPath();
      ctx.moveTo(x, y);
      ctx.lineTo(ex, ey);
      ctx.stroke();
      // The head is at the reference's end; that of the second reference is a ring.
      ctx.beginPath();
      ctx.arc(ex, ey, Math.max(1.6, size / 9), 0, 7);
      if (n && mode === 2) ctx.stroke();
      else ctx.fill();
    }
    const references = frames[chosen].references;
    $('motion-scale').textContent = `(drawn ×${gain}; longest ${number(longest, 2)} samples)`;
    modes.forEach(([label, colour], m) => {
      if (!counts[m]) return;
      const swatch = node('i');
      swatch.style.background = colour;
      const of = m < 2 && references[m] !== undefined ? `, frame ${references[m]}` : '';
      $('motion-legend').append(swatch, `${label}${of}  `);
    });
  }

  const maps = {
    all: ['bits', (p) => p.latent.map((v, i) => v + p.motion[i] + p.hyper[i] + p.inked[i])],
    latent: ['bits of the latent', (p) => p.latent],
    hyper: ['bits of the hyper-latent', (p) => p.hyper],
    motion: ['bits of motion', (p) => p.motion],
    inked: ['bits of ink', (p) => p.inked],
    map: ['quantizer', (p) => p.map && p.map.map((v) => v + frames[chosen].quantizer)],
    ink: ['ink and paper', (p) => p.ink],
  };
  let which = 'all';
  function listMaps() {
    const never = planes && { motion: !planes.layout.columns, inked: !planes.ink, map: !planes.map, ink: !planes.ink };
    const there = Object.keys(maps).filter((name) => !planes || !never[name]);
    const now = there.includes(which) ? which : 'all';
    $('which').replaceChildren(...there.map((name) => node('option', maps[name][0], { value: name })));
    $('which').value = now;
  }
  $('which').addEventListener('change', (e) => { which = e.target.value; drawMap(); });

  // Cividis at five places: even in lightness, the same for all eyes.
  const ramp = [[0, 34, 78], [64, 77, 107], [124, 123, 120], [187, 173, 108], [254, 232, 56]];
  const colour = (t) => {
    const v = Math.max(0, Math.min(1, t)) * (ramp.length - 1);
    const i = Math.min(ramp.length - 2, Math.floor(v));
    return ramp[i].map((a, n) => Math.round(a + (v - i) * (ramp[i + 1][n] - a)));
  };

  function drawMap() {
    const name = $('which').value || 'all';
    const values = planes && maps[name][1](planes);
    const { ctx, ground } = canvas('map', values ? '' : why.map);
    const legend = $('map-legend');
    legend.textContent = '';
    if (!values) return;
    ground(0.35);
    const { across } = planes.layout;
    const cells = name === 'ink';
    const [columns, side] = cells ? [2 * across, 8] : [across, 16];
    const bits = name !== 'map' && !cells;
    const [low, high] = [bits ? 0 : Math.min(...values), Math.max(...values)];
    // Bits by their square root: otherwise a few places hide all others.
    const scaled = (v) => (bits ? Math.sqrt(v / (high || 1)) : (v - low) / (high - low || 1));
    values.forEach((v, i) => {
      if (cells && v === 0) return;
      const [r, g, b] = colour(scaled(v));
      ctx.fillStyle = `rgba(${r},${g},${b},${bits ? 0.25 + 0.7 * scaled(v) : 0.75})`;
      ctx.fillRect((i % columns) * side, Math.floor(i / columns) * side, side, side);
    });
    if (cells) {
      legend.textContent = 'bright: ink, darker: paper without ink';
      return;
    }
    const bar = node('span', undefined, { className: 'ramp' });
    bar.style.background = `linear-gradient(to right, ${ramp.map((c) => `rgb(${c})`).join(',')})`;
    legend.append(number(low), bar, number(high, 1), bits ? ' bits for 16×16 samples' : '');
  }

  function bits(f) {
    const body = $('bits').tBodies[0];
    body.replaceChildren();
    const row = (label, value, unit, share, fill) => {
      const line = node('tr');
      const cell = node('td', undefined, { className: 'bar' });
      const bar = node('span');
      bar.style.width = `${100 * share}%`;
      bar.style.background = fill;
      cell.append(bar);
      line.append(node('th', label, { scope: 'row' }), node('td', `${number(value)}${unit}`, { className: 'size' }), cell);
      body.append(line);
    };
    const most = Math.max(1, ...f.parts);
    present.forEach(([label, fill, i]) => row(label, f.parts[i], ' B', f.parts[i] / most, fill));
    if (f.bands.length) {
      const line = node('tr', undefined, { className: 'group' });
      line.append(node('th', 'Latent by channels, low frequencies first', { colSpan: 3 }));
      body.append(line);
      const top = Math.max(1, ...f.bands);
      const size = 384 / f.bands.length;
      f.bands.forEach((v, i) => row(`${i * size + 1} to ${(i + 1) * size}`, v / 8, ' B', v / top, parts[5][1]));
    }
  }

  // What is under the pointer.
  function tell(event) {
    if (!planes) return;
    const box = event.currentTarget.getBoundingClientRect();
    const x = ((event.clientX - box.left) / box.width) * data.width + data.left;
    const y = ((event.clientY - box.top) / box.height) * data.height + data.top;
    const { columns, rows, cell, across, down } = planes.layout;
    const [px, py] = [Math.floor(x / 16), Math.floor(y / 16)];
    if (px < 0 || py < 0 || px >= across || py >= down) return;
    const place = py * across + px;
    const bits = (name, from) => `${name} ${number(from[place], 1)} bits`;
    const said = [`(${Math.floor(x)}, ${Math.floor(y)})`, bits('latent', planes.latent), bits('hyper-latent', planes.hyper)];
    if (planes.ink) said.push(bits('ink', planes.inked));
    if (columns) {
      const i = Math.min(rows - 1, Math.floor(y / cell)) * columns + Math.min(columns - 1, Math.floor(x / cell));
      said.push(bits('motion', planes.motion));
      [0, 1].forEach((n) => {
        if (planes.mode[i] !== 2 && planes.mode[i] !== n) return;
        const r = frames[chosen].references[n];
        const [vx, vy] = planes.vectors[n].map((v) => v[i] / 4);
        said.push(`from frame ${r === undefined ? '?' : r} by (${vx}, ${vy})`);
      });
    }
    if (planes.map) said.push(`quantizer ${planes.map[place] + frames[chosen].quantizer}`);
    $('place').textContent = said.join(' · ');
  }
  for (const id of ['motion', 'map', 'picture']) $(id).addEventListener('pointermove', tell);

  // ------------------------------------------------------------------ hands
  slider.addEventListener('input', () => choose(Number(slider.value)));
  $('previous').addEventListener('click', () => choose(chosen - 1));
  $('next').addEventListener('click', () => choose(chosen + 1));
  const key = (step) => {
    let i = chosen + step;
    while (i > 0 && i < frames.length - 1 && frames[i].kind !== 'key') i += step;
    return i;
  };
  addEventListener('keydown', (e) => {
    if (e.ctrlKey || e.metaKey || e.altKey || /^(SELECT|SUMMARY)$/.test(e.target.tagName)) return;
    const to = {
      ArrowLeft: () => chosen - 1, ArrowRight: () => chosen + 1,
      PageUp: () => chosen - 10, PageDown: () => chosen + 10,
      Home: () => 0, End: () => frames.length - 1, ',': () => key(-1), '.': () => key(1),
    }[e.key];
    if (!to) return;
    e.preventDefault();
    choose(to());
  });
  addEventListener('hashchange', () => choose(start()));
  new ResizeObserver(() => { if (planes) { drawMotion(); drawMap(); } }).observe($('figures'));
  const start = () => {
    const asked = /^#frame=(\d+)$/.exec(location.hash);
    const first = Number(Object.keys(data.pictures).find((i) => frames[i].kind === 'inter') || 0);
    return asked ? Number(asked[1]) : first;
  };
  choose(start());
})();
