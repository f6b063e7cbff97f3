// Which tab a page is open in: two that write one page would take away each other's text.

/** How long a page that is being left may still hold its claim, in ms. */
const LEAVING = 500;

/**
 * Claims a page for this tab, for as long as the tab lives: resolves to a function that lets go, or to null where another tab
 * has the page. Where the browser has no locks (a page over plain HTTP from another machine) every claim succeeds.
 */
export async function claim(key) {
  if (!navigator.locks) return () => {};
  return new Promise((resolve) => {
    const held = () => new Promise((letGo) => resolve(letGo));
    navigator.locks.request("corella " + key, { signal: AbortSignal.timeout(LEAVING) }, held).catch(() => resolve(null));
  });
}
