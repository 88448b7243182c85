// The list: rows are made as they come into sight, so that thousands open at once.

import { byId, days, element, explain, getJson, outcome, say, signed } from "./common.js";

const COLUMNS = [
  { key: null, title: "" },
  { key: "name", title: "Slide" },
  { key: "patient", title: "Patient" },
  { key: "site", title: "Site" },
  { key: "time_days", title: "Time", number: true, show: (row) => days(row.time_days) },
  { key: "event", title: "Outcome", show: (row) => outcome(row.event) },
  { key: "risk", title: "Risk (SD)", number: true, show: (row) => signed(row.risk) },
];
const PIECE = 60;

let slides = [];
let shown = [];
let drawn = 0;
let chosen = -1;
let order = { key: null, up: true };

function compare(a, b) {
  const [one, other] = [a[order.key], b[order.key]];
  if (one === other) return 0;
  if (one === null || one === "") return 1;
  if (other === null || other === "") return -1;
  const ascending = typeof one === "number" ? one - other : one.localeCompare(other, undefined, { numeric: true });
  return order.up ? ascending : -ascending;
}

function refresh() {
  const words = byId("search").value.toLowerCase().split(/\s+/).filter(Boolean);
  shown = slides.filter((row) => words.every((word) => row.words.includes(word)));
  if (order.key) shown.sort(compare);
  byId("count").textContent = `${shown.length} of ${slides.length} slides`;
  byId("rows").replaceChildren();
  drawn = 0;
  chosen = -1;
  byId("scroller").scrollTop = 0;
  drawMore();
}

function drawMore() {
  const piece = shown.slice(drawn, drawn + PIECE);
  byId("rows").append(...piece.map((row, index) => rowElement(row, drawn + index)));
  drawn += piece.length;
}

function rowElement(row, index) {
  const picture = element("img", { loading: "lazy", decoding: "async", alt: "", src: `api/slides/${row.id}/thumbnail.jpg` });
  const cells = COLUMNS.slice(1).map((column) => {
    const cell = element("td", { textContent: column.show ? column.show(row) : row[column.key] });
    if (column.number) cell.classList.add("number");
    if (column.key === "risk" && row.group) cell.classList.add(row.group);
    return cell;
  });
  const made = element("tr", { onclick: () => open(index) }, element("td", {}, picture), ...cells);
  made.dataset.name = row.name;
  return made;
}

function open(index) {
  location.href = `slide?id=${shown[index].id}`;
}

function choose(index) {
  while (index >= drawn && drawn < shown.length) drawMore();
  const rows = byId("rows").children;
  rows[chosen]?.classList.remove("chosen");
  chosen = Math.max(0, Math.min(index, shown.length - 1));
  rows[chosen]?.classList.add("chosen");
  rows[chosen]?.scrollIntoView({ block: "nearest" });
}

function sortBy(key) {
  order = { key, up: order.key === key ? !order.up : key !== "risk" };
  for (const heading of byId("head").children) {
    const mine = heading.dataset.key === key;
    heading.setAttribute("aria-sort", mine ? (order.up ? "ascending" : "descending") : "none");
    const mark = heading.querySelector("span");
    if (mark) mark.textContent = mine ? (order.up ? " \u25b2" : " \u25bc") : "";
  }
  refresh();
}

function heading(column) {
  const made = element("th", { className: column.number ? "number" : "" });
  if (!column.key) return made;
  made.dataset.key = column.key;
  made.append(element("button", { onclick: () => sortBy(column.key) }, column.title, element("span")));
  return made;
}

function onKey(event) {
  if (event.ctrlKey || event.metaKey || event.altKey) return;
  if (event.key === "/" && event.target !== byId("search")) byId("search").focus();
  else if (event.key === "ArrowDown") choose(chosen + 1);
  else if (event.key === "ArrowUp") choose(chosen - 1);
  else if (event.key === "Enter" && shown.length && event.target.tagName !== "BUTTON") open(Math.max(0, chosen));
  else return;
  event.preventDefault();
}

async function start() {
  const listing = await getJson("api/slides");
  document.title = byId("title").textContent = listing.title;
  byId("notice").textContent = listing.notice;
  slides = listing.slides.map((row) => ({ ...row, words: `${row.name} ${row.patient} ${row.site}`.toLowerCase() }));
  byId("head").append(...COLUMNS.map(heading));
  byId("search").addEventListener("input", refresh);
  byId("scroller").addEventListener("scroll", ({ target }) => {
    if (target.scrollTop + target.clientHeight > target.scrollHeight - 600) drawMore();
  });
  document.addEventListener("keydown", onKey);
  refresh();
  if (slides.some((row) => row.risk !== null)) sortBy("risk");
  performance.mark("listed");
}

start().catch((error) => say(explain(error)));
