// Stores the current edits in the browser, so that a reload or a closed tab loses nothing. Nothing leaves this machine.

const [DATABASE, STORE, KEY] = ["elements-editor", "session", "last"];

/** @param {"readonly"|"readwrite"} mode @param {(store: IDBObjectStore) => IDBRequest} act */
async function within(mode, act) {
  const opened = indexedDB.open(DATABASE, 1);
  opened.onupgradeneeded = () => opened.result.createObjectStore(STORE);
  const database = await done(opened);
  try {
    return await done(act(database.transaction(STORE, mode).objectStore(STORE)));
  } finally {
    database.close();
  }
}

/** @param {IDBRequest} request @returns {Promise<any>} */
const done = (request) =>
  new Promise((resolve, reject) => {
    request.onsuccess = () => resolve(request.result);
    request.onerror = () => reject(request.error);
  });

// Without storage, as in some private windows, the page still works.
export const keep = (/** @type {object} */ session) => within("readwrite", (store) => store.put(session, KEY)).catch(() => {});

export const kept = () => within("readonly", (store) => store.get(KEY)).catch(() => undefined);
