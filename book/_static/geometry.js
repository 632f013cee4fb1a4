// The measures of geodistill.geometry for twelve points in three dimensions, recomputed at each move.
// Features are centred and of unit Frobenius norm; a test compares every number with the library's.
"use strict";

const GEOMETRY = (() => {
  const TEACHER = [
    [2.0, 0.6, 0.2], [-2.1, 0.5, -0.3], [1.7, -0.8, 0.3], [-1.8, -0.6, 0.4], [2.3, 0.1, -0.5], [-2.2, 0.9, 0.1],
    [1.5, 1.0, 0.4], [-1.6, -1.1, -0.2], [2.1, -0.4, -0.4], [-2.0, 0.2, 0.5], [1.9, -0.9, 0.1], [-1.8, 0.5, -0.6],
  ];
  const transpose = (a) => a[0].map((_, j) => a.map((row) => row[j]));
  const times = (a, b) => a.map((row) => transpose(b).map((col) => row.reduce((s, v, k) => s + v * col[k], 0)));
  const squares = (a) => a.flat().reduce((s, v) => s + v * v, 0);
  const diagonal = (v) => v.map((x, i) => v.map((_, j) => (i === j ? x : 0)));

  function standardised(x) {
    const means = transpose(x).map((c) => c.reduce((s, v) => s + v, 0) / c.length);
    const centred = x.map((row) => row.map((v, j) => v - means[j]));
    const norm = Math.sqrt(squares(centred));
    return norm < 1e-12 ? centred.map((row) => row.map(() => 0)) : centred.map((row) => row.map((v) => v / norm));
  }

  // Jacobi: eigenvalues and eigenvectors (columns) of a symmetric 3 x 3 matrix, to rounding.
  function eigen(matrix) {
    let a = matrix.map((row) => [...row]);
    let v = diagonal([1, 1, 1]);
    for (let sweep = 0; sweep < 30; sweep++) {
      for (const [p, q] of [[0, 1], [0, 2], [1, 2]]) {
        if (Math.abs(a[p][q]) < 1e-300) continue;
        const angle = 0.5 * Math.atan2(2 * a[p][q], a[q][q] - a[p][p]);
        const turn = diagonal([1, 1, 1]);
        turn[p][p] = turn[q][q] = Math.cos(angle);
        turn[p][q] = Math.sin(angle);
        turn[q][p] = -Math.sin(angle);
        a = times(transpose(turn), times(a, turn));
        v = times(v, turn);
      }
    }
    return { values: a.map((row, i) => Math.max(row[i], 0)), vectors: v };
  }

  // f applied to the eigenvalues of a symmetric matrix; those that are only rounding give 0.
  function spectral(matrix, f) {
    const { values, vectors } = eigen(matrix);
    const least = 1e-13 * Math.max(...values);
    const mapped = values.map((x) => (x > least ? f(x) : 0));
    return times(vectors, times(diagonal(mapped), transpose(vectors)));
  }

  function student({ turn, stretch }) {
    const c = Math.cos((turn * Math.PI) / 180), s = Math.sin((turn * Math.PI) / 180);
    const about = times([[c, -s, 0], [s, c, 0], [0, 0, 1]], [[c, 0, s], [0, 1, 0], [-s, 0, c]]);
    return times(times(TEACHER, diagonal(stretch)), about);
  }

  function measure(raw, readout) {
    const x = standardised(TEACHER), y = standardised(raw);
    const xx = times(transpose(x), x), yy = times(transpose(y), y), xy = times(transpose(x), y);
    const gram = times(transpose(xy), xy);
    const polar = times(xy, spectral(gram, (v) => 1 / Math.sqrt(v))); // XᵀY = polar · |XᵀY|
    const nuclear = eigen(gram).values.reduce((s, v) => s + Math.sqrt(v), 0);
    const aligned = times(y, transpose(polar));
    const ll = squares(yy), kk = squares(xx), kl = squares(xy);
    const fitted = squares(times(xy, spectral(yy, (v) => 1 / Math.sqrt(v))));
    const error = x.map((row, i) => row[readout] - aligned[i][readout]);
    return {
      x, aligned,
      cka: ll > 0 ? kl / Math.sqrt(kk * ll) : 0,
      procrustes: Math.sqrt(Math.max(squares(x) + squares(y) - 2 * nuclear, 0)),
      gram: Math.sqrt(Math.max(kk + ll - 2 * kl, 0)),
      projection: Math.sqrt(Math.max(squares(x) - fitted, 0)),
      readout: Math.sqrt(squares([error])),
    };
  }
  return { TEACHER, student, measure };
})();

(() => {
  const $ = (id) => document.getElementById(id);
  const ROWS = [
    ["cka", "CKA (1 is best)", 1, "#e69f00"],
    ["procrustes", "Procrustes distance", Math.SQRT2, "#d55e00"],
    ["gram", "Gram distance", Math.SQRT2, "#0072b2"],
    ["projection", "projection distance", 1, "#009e73"],
    ["readout", "readout error, |w| = 1", Math.SQRT2, "#cc79a7"],
  ];
  const PRESETS = {
    "same geometry": [0, 1, 1, 1], "turned": [70, 1, 1, 1], "small ones dropped": [0, 1, 0, 0],
    "stretched": [0, 1, 3, 3], "small one lost": [0, 1, 1, 0],
  };

  function state() {
    const stretch = [1, 2, 3].map((i) => ($(`d${i}`).checked ? 0 : Number($(`s${i}`).value)));
    return { turn: Number($("turn").value), stretch, readout: Number($("readout").value) };
  }

  function sentence(now, found) {
    if (now.stretch.every((s) => s === 0)) return "Nothing is left of the student.";
    if (found.procrustes < 1e-3) return "The geometry is the teacher's: a rotation changes no measure, and any readout carries over.";
    if (found.projection < 1e-3) return "A linear map still finds all of the teacher, so the projection sees nothing; the geometry is another.";
    if (found.cka > 0.95) return "CKA is nearly perfect, yet directions are lost: look at the readout error along them.";
    return "The readout error never exceeds the Procrustes distance (for |w| = 1).";
  }

  // A fixed view of three dimensions: the third recedes to the upper right.
  const view = (p) => [170 * (p[0] + 0.55 * p[2]), -170 * (p[1] + 0.75 * p[2])];

  function draw(found) {
    const parts = found.x.map((p, i) => {
      const [a, b] = view(p), [c, d] = view(found.aligned[i]);
      return `<line x1="${a}" y1="${b}" x2="${c}" y2="${d}" stroke="currentColor" stroke-opacity=".5"/>` +
        `<circle cx="${a}" cy="${b}" r="5" fill="none" stroke="#0072b2" stroke-width="1.8"/>` +
        `<circle cx="${c}" cy="${d}" r="3" fill="#d55e00"/>`;
    });
    $("plot").innerHTML = parts.join("");
  }

  function update() {
    const now = state(), found = GEOMETRY.measure(GEOMETRY.student(now), now.readout);
    draw(found);
    for (const id of ["turn", "s1", "s2", "s3"]) document.querySelector(`output[for=${id}]`).value = $(id).value;
    for (const [name, , most] of ROWS) {
      const cell = $(`m-${name}`);
      cell.textContent = found[name].toFixed(3);
      cell.dataset.value = found[name];
      cell.previousElementSibling.firstElementChild.style.width = `${(100 * found[name]) / most}%`;
    }
    $("say").textContent = sentence(now, found);
  }

  function choose([turn, ...stretch]) {
    $("turn").value = turn;
    stretch.forEach((s, i) => { $(`s${i + 1}`).value = s; $(`d${i + 1}`).checked = false; });
    update();
  }

  $("measures").innerHTML = ROWS.map(([name, label, , colour]) =>
    `<tr><th scope="row">${label}</th><td class="bar" aria-hidden="true"><i style="background:${colour}"></i></td>` +
    `<td class="value" id="m-${name}"></td></tr>`).join("");
  for (const [name, values] of Object.entries(PRESETS)) {
    const button = Object.assign(document.createElement("button"), { type: "button", textContent: name });
    button.addEventListener("click", () => choose(values));
    $("presets").append(button);
  }
  $("controls").addEventListener("input", update);
  $("controls").addEventListener("submit", (event) => event.preventDefault());
  update();
})();
