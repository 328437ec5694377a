/** The dashboard's own addresses, as data, over the browser's History. */
import { useSyncExternalStore } from 'react';

export type Route =
  | { readonly page: 'home' }
  | { readonly page: 'session'; readonly id: string }
  | { readonly page: 'session-desktop'; readonly id: string }
  | { readonly page: 'machines' }
  | { readonly page: 'machine'; readonly id: string }
  | { readonly page: 'terminal'; readonly id: string }
  | { readonly page: 'credentials' }
  | { readonly page: 'hosts' }
  | { readonly page: 'doctor' }
  | { readonly page: 'not-found' };

/** The route of a path; unknown paths are `not-found`. */
export function parseRoute(path: string): Route {
  const [first, id, third, ...rest] = path.split('/').filter((part) => part !== '');
  if (rest.length > 0) return { page: 'not-found' };
  if (first === undefined) return { page: 'home' };
  if (id === undefined) {
    if (first === 'machines' || first === 'credentials') return { page: first };
    if (first === 'hosts' || first === 'doctor') return { page: first };
    return { page: 'not-found' };
  }
  if (first === 'sessions' && third === undefined) return { page: 'session', id };
  if (first === 'sessions' && third === 'desktop') return { page: 'session-desktop', id };
  if (first === 'machines' && third === undefined) return { page: 'machine', id };
  if (first === 'machines' && third === 'terminal') return { page: 'terminal', id };
  return { page: 'not-found' };
}

/** The path of a route. */
export function pathOf(route: Route): string {
  switch (route.page) {
    case 'home':
    case 'not-found':
      return '/';
    case 'session':
      return `/sessions/${route.id}`;
    case 'session-desktop':
      return `/sessions/${route.id}/desktop`;
    case 'machine':
      return `/machines/${route.id}`;
    case 'terminal':
      return `/machines/${route.id}/terminal`;
    default:
      return `/${route.page}`;
  }
}

const listeners = new Set<() => void>();
const notify = (): void => {
  for (const listener of listeners) listener();
};

/** Whether this page was opened by a sign-in link that the server refused; it says so in the address it redirects to. */
export const linkWasRefused = (): boolean =>
  new URLSearchParams(location.search).get('sign-in') === 'refused';

/** Goes to a route without loading the page again. */
export function navigate(route: Route): void {
  history.pushState(null, '', pathOf(route));
  notify();
  scrollTo(0, 0);
}

function subscribe(listener: () => void): () => void {
  listeners.add(listener);
  addEventListener('popstate', listener);
  return () => {
    listeners.delete(listener);
    removeEventListener('popstate', listener);
  };
}

/** The path shown now. */
export const usePath = (): string => useSyncExternalStore(subscribe, () => location.pathname);
