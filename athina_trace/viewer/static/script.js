"use strict";

// -- light and dark

const root = document.documentElement;

document.getElementById("theme").addEventListener("click", () => {
  const dark = root.dataset.theme ? root.dataset.theme === "dark" : matchMedia("(prefers-color-scheme: dark)").matches;
  root.dataset.theme = dark ? "light" : "dark";
  localStorage.setItem("theme", root.dataset.theme);
  dispatchEvent(new Event("themed"));
});

// -- copying

async function toClipboard(text) {
  if (navigator.clipboard) return navigator.clipboard.writeText(text);
  const area = document.createElement("textarea"); // pages over plain HTTP from another machine
  area.value = text;
  document.body.append(area);
  area.select();
  document.execCommand("copy");
  area.remove();
}

document.addEventListener("click", async (event) => {
  const button = event.target.closest("button.copy");
  if (!button) return;
  const label = (button.dataset.label ??= button.textContent); // a second click finds "Copied" there
  try {
    const code = "copyCode" in button.dataset ? button.closest("figure").querySelector("code").textContent : null;
    const text = code ?? button.dataset.copy ?? (await (await fetch(button.dataset.fetch)).text());
    await toClipboard(text);
    button.textContent = "Copied";
  } catch {
    button.textContent = "Not copied";
  }
  setTimeout(() => (button.textContent = label), 1200);
});

// -- long answers: folded, unless what was searched for is in one

document.addEventListener("click", (event) => {
  const button = event.target.closest("button.unfold");
  if (button) button.previousElementSibling.classList.remove("folded");
});

function unfoldMatches() {
  for (const long of document.querySelectorAll(".folded:has(mark)")) long.classList.remove("folded");
}
unfoldMatches();
addEventListener("renewed", unfoldMatches);

// -- filters: an address holds what was chosen and nothing else

document.querySelector("form.filters")?.addEventListener("submit", (event) => {
  for (const field of event.target.elements) if (field.name && !field.value) field.disabled = true;
});

// Back from another page, the form is as it was.
addEventListener("pageshow", () => {
  for (const field of document.querySelectorAll("form.filters :disabled")) field.disabled = false;
});

// -- keyboard

const pages = { s: "/", l: "/logs", c: "/charts", p: "/compare", d: "/delivery" };
let leading = false;

function step(by) {
  const rows = [...document.querySelectorAll("#live .list tbody a.row, #live .turn")];
  const place = rows.findIndex((row) => row === document.activeElement || row.contains(document.activeElement));
  const next = rows[place < 0 ? (by > 0 ? 0 : rows.length - 1) : place + by];
  if (!next) return;
  if (next.matches(".turn")) next.tabIndex = -1;
  next.focus();
  next.scrollIntoView({ block: "nearest" });
}

document.addEventListener("keydown", (event) => {
  if (event.ctrlKey || event.metaKey || event.altKey) return;
  const field = document.activeElement?.matches("input, select, textarea");
  if (field) {
    if (event.key === "Escape") document.activeElement.blur();
    return;
  }
  if (leading && pages[event.key]) location.href = pages[event.key];
  else if (event.key === "n") document.querySelector(".neighbours [rel=next]")?.click();
  else if (event.key === "p") document.querySelector(".neighbours [rel=prev]")?.click();
  leading = event.key === "g";
  if (event.key === "j") step(1);
  if (event.key === "k") step(-1);
  if (event.key === "/") {
    const search = document.getElementById("q");
    if (search) {
      event.preventDefault();
      search.focus();
      search.select();
    } else location.href = "/";
  }
});

// -- live: when something was logged, the changing part of the page is fetched again and replaced

const live = document.getElementById("live");
const fresh = document.getElementById("fresh");
let version = document.body.dataset.version;

function isBusy() {
  const selected = getSelection();
  const held = live.contains(document.activeElement) && document.activeElement !== live;
  const reading = selected && !selected.isCollapsed && live.contains(selected.anchorNode);
  return held || reading || scrollY > 120;
}

async function renew() {
  const answer = await fetch(location.href, { headers: { accept: "text/html" } });
  if (!answer.ok) return;
  const page = new DOMParser().parseFromString(await answer.text(), "text/html");
  const open = [...live.querySelectorAll("details[open][id]")].map((each) => each.id);
  const parts = [...page.getElementById("live").childNodes].map((node) => document.importNode(node, true));
  live.replaceChildren(...parts);
  for (const id of open) document.getElementById(id)?.setAttribute("open", "");
  document.querySelector("header nav").replaceWith(document.importNode(page.querySelector("header nav"), true));
  version = page.body.dataset.version;
  fresh.hidden = true;
  dispatchEvent(new Event("renewed"));
}

async function look() {
  try {
    if (!document.hidden) {
      const answer = await fetch("/live");
      const now = answer.ok ? String((await answer.json()).version) : version;
      if (now !== version) {
        if (isBusy()) fresh.hidden = false;
        else await renew();
      }
    }
  } catch {
    // The viewer has ended; it may come back under the same address.
  }
  setTimeout(look, 1000);
}

fresh.addEventListener("click", () => {
  scrollTo({ top: 0 });
  renew();
});
setTimeout(look, 1000);
