// Before anything is drawn: what was chosen the last time. Otherwise the system decides.
const chosen = localStorage.getItem("flexray-theme");
if (chosen) document.documentElement.dataset.theme = chosen;
