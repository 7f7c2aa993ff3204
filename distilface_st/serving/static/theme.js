// Runs before the first paint, so that a remembered theme never flashes. Without one, the system's choice holds.
const remembered = localStorage.getItem("distilface-theme");
if (remembered) document.documentElement.dataset.theme = remembered;
