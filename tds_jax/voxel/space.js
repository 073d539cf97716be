// Points of `volumes` inside `box` (x0, x1, y0, y1, z0, z1, size of a voxel), seen in perspective.
const canvas = document.getElementById("space"), pen = canvas.getContext("2d");
const [x0, x1, y0, y1, z0, z1, size] = box;
const middle = [(x0 + x1) / 2, (y0 + y1) / 2, (z0 + z1) / 2];
const reach = Math.hypot(x1 - x0, y1 - y0, z1 - z0);
const view = { turn: -2.6, tilt: 0.55, far: 1.4 * reach, right: 0, up: 0 };
const shown = [...document.querySelectorAll("#names input")];

function project(x, y, z) {
  // Turned about z, tilted towards the eye: right, up and away from it.
  const [a, b, c] = [x - middle[0], y - middle[1], z - middle[2]];
  const s = Math.sin(view.turn), k = Math.cos(view.turn);
  const right = k * a - s * b, ahead = s * a + k * b;
  const st = Math.sin(view.tilt), kt = Math.cos(view.tilt);
  const away = view.far + kt * ahead - st * c;
  if (away < 0.05 * reach) return null;
  const zoom = 0.9 * Math.min(canvas.width, 1.6 * canvas.height) / away;
  return [canvas.width / 2 + zoom * (right + view.right),
          canvas.height / 2 - zoom * (st * ahead + kt * c + view.up), away, zoom];
}

function line(from, to, colour) {
  const [p, q] = [project(...from), project(...to)];
  if (!p || !q) return;
  pen.strokeStyle = colour;
  pen.beginPath(); pen.moveTo(p[0], p[1]); pen.lineTo(q[0], q[1]); pen.stroke();
}

function word(text, place) {
  const p = project(...place);
  if (p) pen.fillText(text, p[0], p[1]);
}

function step(length) {
  const rough = length / 5, power = 10 ** Math.floor(Math.log10(rough));
  return power * [1, 2, 5, 10].find((n) => n * power >= rough);
}

function axes() {
  pen.lineWidth = 1;
  pen.fillStyle = "#555";
  pen.font = `${13 * devicePixelRatio}px sans-serif`;
  for (const x of [x0, x1]) for (const y of [y0, y1]) line([x, y, z0], [x, y, z1], "#ccc");
  for (const z of [z0, z1]) {
    for (const y of [y0, y1]) line([x0, y, z], [x1, y, z], "#ccc");
    for (const x of [x0, x1]) line([x, y0, z], [x, y1, z], "#ccc");
  }
  const every = step(Math.max(x1 - x0, y1 - y0));
  for (let x = Math.ceil(x0 / every) * every; x <= x1; x += every) {
    line([x, y0, z0], [x, y1, z0], "#eee");
    word(x.toFixed(0), [x, y0 - 0.03 * reach, z0]);
  }
  for (let y = Math.ceil(y0 / every) * every; y <= y1; y += every) {
    line([x0, y, z0], [x1, y, z0], "#eee");
    word(y.toFixed(0), [x0 - 0.03 * reach, y, z0]);
  }
  word("x forward [m]", [middle[0], y0 - 0.08 * reach, z0]);
  word("y left [m]", [x0 - 0.08 * reach, middle[1], z0]);
  word(`z ${z0} to ${z1} m`, [x0, y1, z1 + 0.02 * reach]);
}

function draw() {
  canvas.width = canvas.clientWidth * devicePixelRatio;
  canvas.height = (innerHeight - canvas.offsetTop) * devicePixelRatio;
  canvas.style.height = `${innerHeight - canvas.offsetTop}px`;
  pen.clearRect(0, 0, canvas.width, canvas.height);
  axes();
  const seen = [];
  volumes.forEach(({ colour, points }, i) => {
    if (!shown[i].checked) return;
    for (let n = 0; n < points.length; n += 3) {
      const p = project(points[n], points[n + 1], points[n + 2]);
      if (p) seen.push([p[2], p[0], p[1], p[3], colour]);
    }
  });
  seen.sort((one, other) => other[0] - one[0]);  // the far ones first
  pen.globalAlpha = 0.75;
  for (const [, x, y, zoom, colour] of seen) {
    const side = Math.max(1.5, 0.7 * size * zoom);
    pen.fillStyle = colour;
    pen.fillRect(x - side / 2, y - side / 2, side, side);
  }
  pen.globalAlpha = 1;
}

canvas.addEventListener("pointerdown", (event) => canvas.setPointerCapture(event.pointerId));
canvas.addEventListener("pointermove", (event) => {
  if (!event.buttons) return;
  if (event.shiftKey) {
    const metres = view.far / canvas.clientWidth;
    view.right += event.movementX * metres;
    view.up -= event.movementY * metres;
  } else {
    view.turn += event.movementX / 200;
    view.tilt = Math.max(-1.5, Math.min(1.5, view.tilt + event.movementY / 200));
  }
  draw();
});
canvas.addEventListener("wheel", (event) => {
  event.preventDefault();
  view.far = Math.max(0.1 * reach, Math.min(5 * reach, view.far * Math.exp(event.deltaY / 800)));
  draw();
}, { passive: false });
for (const box of shown) box.addEventListener("change", draw);
addEventListener("resize", draw);
draw();
