/** All filters by name. Jinja2's own are here but for those that make no sense for data; see docs/expressions.md. */
import { dateFilters } from './filters_dates.ts';
import { known, listFilters } from './filters_lists.ts';
import { textFilters } from './filters_text.ts';
import { valueFilters } from './filters_values.ts';
import { isTests } from './is_tests.ts';
import { type Routines, routines } from './routine.ts';

export const filters: Routines = routines([...textFilters, ...listFilters, ...valueFilters, ...dateFilters], {
  d: 'default',
  e: 'escape',
  forceescape: 'escape',
  count: 'length',
});

known.filters = filters;
known.tests = isTests;
