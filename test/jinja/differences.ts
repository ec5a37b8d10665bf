/** What expressions do otherwise than Jinja2, on purpose: the table of docs/expressions.md, each row with an example. */

export interface Difference {
  /** Number of the row in the table. */
  row: number;
  source: string;
  /** What Python's Jinja2 prints, or undefined where it fails. */
  jinja: string | undefined;
  /** What rules print, or undefined where they fail. */
  rules: string | undefined;
}

export const differences: readonly Difference[] = [
  { row: 1, source: '{{ amount * 1.1 }}|', jinja: undefined, rules: '21.989|' },
  { row: 1, source: '{{ 0.1 + amount }}|', jinja: undefined, rules: '20.09|' },
  { row: 1, source: '{{ amount == 19.99 }}|', jinja: 'False|', rules: 'True|' },
  {
    row: 2,
    source: '{{ big * big * big * big * 10 ** 30 + 1 }}|',
    jinja: '1.000000000000000000000000000E+30|',
    rules: `1${'0'.repeat(29)}1|`,
  },
  { row: 2, source: '{{ amount | round(0, "ceil") }}|', jinja: '20.0|', rules: '20|' },
  { row: 2, source: '{{ amount ** 0.5 }}|', jinja: undefined, rules: undefined },
  { row: 3, source: '{{ amount / 1000000000 }}|', jinja: '1.999E-8|', rules: '0.00000001999|' },
  { row: 4, source: '{{ [1, 2] | map("string") }}|', jinja: 'generator', rules: "['1', '2']|" },
  { row: 4, source: '{{ [1, 2] | select("odd") | length }}|', jinja: undefined, rules: '1|' },
  { row: 5, source: '{{ doc.keys() }}|', jinja: "dict_keys(['a'])|", rules: "['a']|" },
  { row: 6, source: '{{ ("<" | e) + "<" }}|', jinja: '&lt;&lt;|', rules: '&lt;<|' },
  { row: 7, source: '{{ [amount, born] | tojson }}|', jinja: undefined, rules: '[19.99, "2000-02-29"]|' },
  { row: 7, source: '{{ "nan" | float | tojson }}|', jinja: 'NaN|', rules: undefined },
  { row: 8, source: '{{ doc.keys }}|', jinja: 'built-in method', rules: undefined },
  { row: 9, source: '{{ name.domain }}|', jinja: '|', rules: undefined },
  { row: 10, source: '{{ nmae | default("x") }}|', jinja: 'x|', rules: undefined },
  { row: 11, source: '{{ at.replace(year=904).strftime("%Y") }}|', jinja: '904|', rules: '0904|' },
  { row: 12, source: '{{ "".__class__ }}|', jinja: "<class 'str'>|", rules: undefined },
  { row: 13, source: '{% macro m() %}{% endmacro %}{{ m() }}|', jinja: '|', rules: undefined },
  { row: 14, source: '{{ (-8) ** 0.5 }}|', jinja: '(1.7319121124709868e-16+2.8284271247461903j)|', rules: undefined },
  { row: 15, source: '{{ {}[1:2] }}|', jinja: '|', rules: undefined },
  { row: 16, source: '{{ "٣" | int }}|', jinja: '3|', rules: '0|' },
  {
    row: 18,
    source: '{{ born.isocalendar() }}|',
    jinja: 'IsoCalendarDate(year=2000, week=9, weekday=2)',
    rules: '(2000, 9, 2)|',
  },
  { row: 17, source: '{% for i in [1] %}{{ name }}{% endfor %}{% set name = 1 %}|', jinja: '|', rules: 'Ann|' },
];
