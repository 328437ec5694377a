/**
 * web/: the dashboard. `pages/` what an address shows, `widgets/` what pages are made of, `data/` where it comes
 * from; `build.ts` bundles it, `testing/` serves the built page against a small API of its own.
 */
import { createRoot } from 'react-dom/client';
import { App } from './pages/app.tsx';

const place = document.getElementById('app');
if (place === null) throw new Error('index.html has no #app');
createRoot(place).render(<App />);
