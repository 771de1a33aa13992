// Downloads: the data that the page holds, as files.
const TYPES = { json: "application/json", csv: "text/csv" };
for (const line of document.querySelectorAll(".downloads")) line.hidden = false;
for (const button of document.querySelectorAll("[data-source]")) {
  button.addEventListener("click", () => {
    const { source, part, name } = button.dataset;
    const data = JSON.parse(document.getElementById(source).textContent)[part];
    const text = typeof data === "string" ? data : JSON.stringify(data, null, 1) + "\n";
    const link = document.createElement("a");
    link.href = URL.createObjectURL(new Blob([text], { type: TYPES[name.split(".").pop()] }));
    link.download = name;
    link.click();
    setTimeout(() => URL.revokeObjectURL(link.href), 1000);
  });
}
