"use strict";
// The filters of the matrix. Without this script the whole matrix is there, unfiltered.
(() => {
  const form = document.querySelector(".filters");
  if (!form) return;
  const find = (id) => document.getElementById(id);
  const rows = [...document.querySelectorAll("#matrix > tbody > tr")];
  const texts = rows.map((row) => row.textContent.toLowerCase());
  const marks = rows.map((row) => [...row.querySelectorAll("td.mark")]);

  const filter = () => {
    const words = find("search").value.toLowerCase().split(/\s+/).filter(Boolean);
    const failures = find("failures").checked, different = find("different").checked;
    const of = find("of").value, split = find("split") ? find("split").value : "";
    let shown = 0;
    rows.forEach((row, i) => {
      const keep = words.every((word) => texts[i].includes(word))
        && (!failures || "failed" in row.dataset)
        && (!different || "different" in row.dataset)
        && (of === "" || "bad" in marks[i][Number(of)].dataset)
        && (split === "" || row.dataset.split === split);
      row.hidden = !keep;
      shown += keep;
    });
    find("shown").textContent = `${shown} of ${rows.length} rows`;
  };

  form.hidden = false;
  form.addEventListener("input", filter);
  form.addEventListener("submit", (event) => event.preventDefault());
  filter();
})();
