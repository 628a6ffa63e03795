// Keeps a page as new as its server: fetches it again and replaces what changed, piece by piece.
// A piece in which somebody writes is left alone, and what was unfolded stays unfolded.
"use strict";

const EVERY_MS = 2000;
let tag = null;
const news = document.getElementById("news");

function say(text, well) {
  if (!news) return;
  news.textContent = text;
  news.classList.toggle("lost", !well);
}

function inUse(piece) {
  // What has the focus, or is being selected to be copied, would lose it.
  if (piece.contains(document.activeElement)) return true;
  const selection = document.getSelection();
  if (selection && !selection.isCollapsed && selection.containsNode(piece, true)) return true;
  const fields = [...piece.querySelectorAll("input:not([type=hidden]), textarea")];
  if (fields.some((field) => field.value !== field.defaultValue)) return true;
  const chosen = (option) => option.selected !== option.defaultSelected && option.index > 0;
  return [...piece.querySelectorAll("option")].some(chosen);
}

function replace(piece, fresh) {
  if (piece.outerHTML === fresh.outerHTML || inUse(piece)) return;
  for (const open of piece.querySelectorAll("details[open][id]")) {
    const same = fresh.querySelector(`#${CSS.escape(open.id)}`);
    if (same) same.open = true;
  }
  const scrolled = piece.querySelector(".scroll");
  const left = scrolled ? scrolled.scrollLeft : 0;
  piece.replaceWith(document.importNode(fresh, true));
  const again = document.getElementById(fresh.id)?.querySelector(".scroll");
  if (again) again.scrollLeft = left;
}

async function renew() {
  if (!document.hidden) {
    try {
      const headers = tag ? { accept: "text/html", "if-none-match": tag } : { accept: "text/html" };
      const answer = await fetch(location.href, { headers });
      // Nothing has changed since: the server has read hardly anything, and there is nothing to replace.
      if (answer.status === 304) {
        say("● live", true);
        return setTimeout(renew, EVERY_MS);
      }
      if (!answer.ok) throw new Error(String(answer.status));
      tag = answer.headers.get("etag");
      const fresh = new DOMParser().parseFromString(await answer.text(), "text/html");
      document.title = fresh.title;
      for (const piece of document.querySelectorAll("[data-live][id]")) {
        const same = fresh.getElementById(piece.id);
        if (same) replace(piece, same);
      }
      say("● live", true);
      if (!fresh.getElementById("news")) return say("", true);
    } catch {
      say("◌ not live: the server does not answer", false);
    }
  }
  setTimeout(renew, EVERY_MS);
}

setTimeout(renew, EVERY_MS);
