// The patient's predicted survival beside what was observed in the cohort.

const SPACE = "http://www.w3.org/2000/svg";
const COLOURS = ["#9aa2b1", "#2166ac", "#b2182b"];

function shape(name, attributes, text) {
  const made = document.createElementNS(SPACE, name);
  for (const [key, value] of Object.entries(attributes)) made.setAttribute(key, value);
  if (text !== undefined) made.textContent = text;
  return made;
}

export function survivalFigure(cohort, patient, here, endpoint) {
  const [width, height, left, top, right, bottom] = [276, 190, 30, 8, 8, 28];
  const last = Math.max(1, ...[...cohort, ...(patient ? [patient] : [])].map((curve) => curve.days.at(-1) ?? 0));
  const x = (day) => left + ((width - left - right) * day) / last;
  const y = (share) => height - bottom - (height - top - bottom) * share;
  const figure = shape("svg", { viewBox: `0 0 ${width} ${height + 14 * (cohort.length + 1)}`, role: "img", "aria-label": "Survival" });
  for (const share of [0, 0.5, 1]) {
    figure.append(shape("line", { x1: left, x2: width - right, y1: y(share), y2: y(share), stroke: "#e3e6eb" }));
    figure.append(shape("text", { x: left - 4, y: y(share) + 3, "text-anchor": "end" }, `${share * 100} %`));
  }
  const years = Math.max(1, Math.ceil(last / 365.25 / 6));
  for (let year = 0; year * 365.25 <= last; year += years) {
    figure.append(shape("text", { x: x(year * 365.25), y: height - bottom + 12, "text-anchor": "middle" }, `${year}`));
  }
  figure.append(shape("text", { x: (left + width - right) / 2, y: height - 4, "text-anchor": "middle" }, `years, ${endpoint}`));
  cohort.forEach((curve, index) => {
    let path = `M${x(0)},${y(1)}`;
    curve.days.forEach((day, step) => { path += `H${x(day)}V${y(curve.survival[step])}`; });
    figure.append(shape("path", { d: path, fill: "none", stroke: COLOURS[index % 3], "stroke-width": 1.2 }));
  });
  if (patient) {
    const points = [`${x(0)},${y(1)}`, ...patient.days.map((day, step) => `${x(day)},${y(patient.survival[step])}`)];
    figure.append(shape("polyline", { points: points.join(" "), fill: "none", stroke: "#111", "stroke-width": 2 }));
  }
  if (here.time_days !== null) {
    figure.append(shape("line", { x1: x(here.time_days), x2: x(here.time_days), y1: y(0), y2: y(1), stroke: "#111", "stroke-dasharray": here.event ? "" : "3 3" }));
  }
  const legend = [...cohort.map((curve, index) => [curve.name, COLOURS[index % 3]]), ...(patient ? [[patient.name, "#111"]] : [])];
  legend.forEach(([name, colour], index) => {
    const line = height + 8 + 14 * index;
    figure.append(shape("line", { x1: left, x2: left + 16, y1: line - 3, y2: line - 3, stroke: colour, "stroke-width": 2 }));
    figure.append(shape("text", { x: left + 21, y: line }, name));
  });
  return figure;
}
