"""
Python's own Jinja2, asked over pipes: one JSON request a line, one JSON answer a line.

What expressions of rules do otherwise on purpose is changed here in one place each, marked with the number of the row in
the table "Differences from Jinja2" of docs/expressions.md; everything else is Jinja2 as it is.
"""
import json
import math
import re
import resource
import signal
import sys
from datetime import date, datetime, timedelta, timezone
from decimal import ROUND_CEILING, ROUND_FLOOR, ROUND_HALF_EVEN, Context, Decimal
from urllib.parse import quote_from_bytes  # noqa: F401  (loaded early: requests may not import under the memory limit)

from jinja2 import Environment, Undefined, nodes
from jinja2.compiler import CodeGenerator

# A request that a limit of rules would refuse must not stop the oracle.
resource.setrlimit(resource.RLIMIT_AS, (2 << 30, 2 << 30))
seconds_of_request = 5

exact = Context(prec=6000, rounding=ROUND_HALF_EVEN, Emin=-99999, Emax=99999)


def as_decimal(value):
    if isinstance(value, Decimal):
        return value
    if isinstance(value, int):
        return Decimal(int(value))
    if isinstance(value, float):
        if not math.isfinite(value):
            raise ValueError("no decimal")
        return Decimal(format(Decimal(repr(value)), "f"))
    return None


class Exact(Decimal):
    """Rows 1 to 3: Decimals mix with floats by what those print, are exact, and print in full."""

    def __str__(self):
        return format(Decimal(self), "f")

    def __repr__(self):
        return f"Decimal('{str(self)}')"

    def __round__(self, places=None):
        if places is None:
            return int(exact.quantize(self, Decimal(1)))
        return wrap(exact.quantize(self, Decimal(1).scaleb(-places)))

    def __neg__(self):
        return wrap(exact.minus(self))

    def __pos__(self):
        return self

    def __abs__(self):
        return wrap(exact.abs(self))

    __hash__ = Decimal.__hash__


def wrap(value):
    if value.as_tuple().exponent > 0:
        value = exact.quantize(value, Decimal(1))
    return Exact(value.copy_abs() if value.is_zero() else value)


def digits(value):
    return len(value.as_tuple().digits)


def divide(a, b):
    return Context(prec=max(28, digits(a), digits(b)), Emin=-99999, Emax=99999).divide(a, b)


def power(a, b):
    if b != b.to_integral_value():
        raise ValueError("not whole")
    if a.is_zero() and b <= 0:
        raise ZeroDivisionError("zero to zero or less")
    n = abs(int(b))
    sign, ds, exponent = a.as_tuple()
    coefficient = int("".join(map(str, ds))) * (-1 if sign else 1)
    result = Decimal(coefficient**n).scaleb(exponent * n, exact)
    return divide(Decimal(1), result) if b < 0 else result


def operator(name, compute):
    def forward(self, other):
        number = as_decimal(other)
        return NotImplemented if number is None else wrap(compute(Decimal(self), number))

    def backward(self, other, modulo=None):
        number = as_decimal(other)
        return NotImplemented if number is None else wrap(compute(number, Decimal(self)))

    setattr(Exact, f"__{name}__", forward)
    setattr(Exact, f"__r{name}__", backward)


operator("add", exact.add)
operator("sub", exact.subtract)
operator("mul", exact.multiply)
operator("truediv", divide)
operator("floordiv", exact.divide_int)
operator("mod", exact.remainder)
operator("pow", power)


def comparison(name, compare):
    def compared(self, other):
        if isinstance(other, float) and not math.isfinite(other):
            return getattr(Decimal, f"__{name}__")(self, other)
        number = as_decimal(other)
        return NotImplemented if number is None else compare(exact.compare(self, number))

    setattr(Exact, f"__{name}__", compared)


for entry in [
    ("eq", lambda c: c == 0),
    ("ne", lambda c: c != 0),
    ("lt", lambda c: c < 0),
    ("le", lambda c: c <= 0),
    ("gt", lambda c: c > 0),
    ("ge", lambda c: c >= 0),
]:
    comparison(*entry)
Exact.__hash__ = Decimal.__hash__


class Unfolded(CodeGenerator):
    """Constants are computed like anything else: at compile time Jinja2 would do it in another way, and forgive errors."""

    def _output_child_to_const(self, node, frame, finalize):
        if isinstance(node, nodes.TemplateData):
            return super()._output_child_to_const(node, frame, finalize)
        raise nodes.Impossible()


def strftime(moment, format):
    """Row 11: years have four digits."""
    years = {"%Y": f"{moment.year:04}", "%G": f"{moment.isocalendar()[0]:04}"}
    return moment.strftime(re.sub("%.", lambda part: years.get(part[0], part[0]), format))


class Oracle(Environment):
    code_generator_class = Unfolded

    def getattr(self, obj, attribute):
        # Row 5: keys, values and items of dicts are lists.
        if isinstance(obj, dict) and attribute in ("keys", "values", "items"):
            return lambda: list(getattr(obj, attribute)())
        if isinstance(obj, date) and attribute == "strftime":
            return lambda format: strftime(obj, format)
        if isinstance(obj, date) and attribute == "isocalendar":
            # Row 18: a plain tuple.
            return lambda: tuple(obj.isocalendar())
        return super().getattr(obj, attribute)


env = Oracle(optimized=False)


def listed(name):
    """Row 4: what makes a generator makes a list."""
    original = env.filters[name]

    def filter(*args, **kwargs):
        result = original(*args, **kwargs)
        return result if isinstance(result, str) else list(result)

    for mark in ("jinja_pass_arg", "jinja_async_variant"):
        if hasattr(original, mark):
            setattr(filter, mark, getattr(original, mark))
    env.filters[name] = filter


for filter_name in ["map", "select", "reject", "selectattr", "rejectattr", "unique", "batch", "slice", "items", "reverse"]:
    listed(filter_name)


def plain(name):
    """Row 6: escaped text is text like any other."""
    original = env.filters[name]

    def filter(*args, **kwargs):
        return str.__str__(original(*args, **kwargs))

    if hasattr(original, "jinja_pass_arg"):
        filter.jinja_pass_arg = original.jinja_pass_arg
    env.filters[name] = filter


for filter_name in ["escape", "e", "forceescape", "safe", "striptags", "xmlattr"]:
    plain(filter_name)


def tojson(value, indent=None):
    """Row 7: JSON holds Decimals in full, and dates as text; not NaN."""

    def default(value):
        if isinstance(value, Decimal):
            return f"\x00number:{value}\x00"
        if isinstance(value, datetime):
            return value.isoformat()
        if isinstance(value, (date, timedelta)):
            return str(value)
        raise TypeError("no JSON")

    text = json.dumps(value, indent=indent, sort_keys=True, allow_nan=False, default=default)
    text = re.sub(r'"\\u0000number:([^"\\]*)\\u0000"', r"\1", text)
    for sign in "<>&'":
        text = text.replace(sign, f"\\u00{ord(sign):02x}")
    return text


def round_filter(value, precision=0, method="common"):
    """Row 2: a Decimal that is rounded up or down stays a Decimal."""
    if isinstance(value, Decimal) and method in ("ceil", "floor"):
        rounding = ROUND_CEILING if method == "ceil" else ROUND_FLOOR
        return wrap(Decimal(value).quantize(Decimal(1).scaleb(-precision), rounding=rounding, context=exact))
    return original_round(value, precision, method)


original_round = env.filters["round"]
env.filters["round"] = round_filter
env.filters["tojson"] = tojson


# ---- what Jinja2 does not have


def decimal_filter(value, default=None):
    if isinstance(value, Undefined):
        return int(value)
    fallback = Exact(0) if default is None else default
    try:
        if isinstance(value, str):
            number = Decimal(value)
            return wrap(number) if number.is_finite() else fallback
        number = as_decimal(value)
        return fallback if number is None else wrap(number)
    except (ValueError, ArithmeticError):
        return fallback


def from_json(value):
    def refuse(word):
        raise ValueError(word)

    if not isinstance(value, str):
        raise TypeError("text wanted")
    return json.loads(value, parse_constant=refuse)


def flags(ignorecase, multiline):
    return re.ASCII | (re.IGNORECASE if ignorecase else 0) | (re.MULTILINE if multiline else 0)


def regex_replace(value, pattern, replacement="", ignorecase=False, multiline=False, count=0):
    return re.sub(pattern, replacement, str(value), count=count, flags=flags(ignorecase, multiline))


def regex_search(value, pattern, group=0, ignorecase=False, multiline=False):
    match = re.search(pattern, str(value), flags(ignorecase, multiline))
    return match.group(group) if match else None


def regex_findall(value, pattern, ignorecase=False, multiline=False):
    return [list(m) if isinstance(m, tuple) else m for m in re.findall(pattern, str(value), flags(ignorecase, multiline))]


def regex_match(value, pattern, ignorecase=False, multiline=False):
    return re.match(pattern, str(value), flags(ignorecase, multiline)) is not None


def regex_found(value, pattern, ignorecase=False, multiline=False):
    return re.search(pattern, str(value), flags(ignorecase, multiline)) is not None


iso = re.compile(
    r"(\d{4})-(\d{2})-(\d{2})(?:[Tt ](\d{2}):(\d{2})(?::(\d{2})(?:[.,](\d{1,9}))?)?[ ]?([Zz]|[+-]\d{2}(?::?\d{2})?)?)?"
)


def parse_iso(text):
    match = iso.fullmatch(text.strip())
    if not match:
        raise ValueError("no date")
    y, m, d, h, mi, s, fraction, zone = match.groups()
    micros = int((fraction or "").ljust(6, "0")[:6])
    moment = datetime(int(y), int(m), int(d), int(h or 0), int(mi or 0), int(s or 0), micros)
    if zone is None:
        return moment
    if zone in "Zz":
        offset = timedelta(0)
    else:
        hours, minutes = int(zone[1:3]), int(zone[3:].strip(":") or 0)
        offset = timedelta(hours=hours, minutes=minutes) * (-1 if zone[0] == "-" else 1)
    return moment.replace(tzinfo=timezone(offset)).astimezone(timezone.utc)


def moment_of(value):
    if isinstance(value, date):
        return value
    if isinstance(value, str):
        return parse_iso(value)
    raise TypeError("date wanted")


def to_datetime(value, format=None):
    if isinstance(value, str) and format is not None:
        parsed = datetime.strptime(value, format)
        return parsed.astimezone(timezone.utc) if parsed.tzinfo else parsed
    value = moment_of(value)
    return value if isinstance(value, datetime) else datetime(value.year, value.month, value.day)


def to_date(value, format=None):
    if isinstance(value, date) and not isinstance(value, datetime):
        return value
    return to_datetime(value, format).date()


def span(name, count):
    micros = {"weeks": 604800, "days": 86400, "hours": 3600, "minutes": 60, "seconds": 1}
    unit = Decimal(micros[name]) * 1000000 if name in micros else Decimal(1000 if name == "milliseconds" else 1)
    return int(exact.quantize(exact.multiply(as_decimal(count), unit), Decimal(1)))


def date_add(value, years=0, months=0, **spans):
    moment = moment_of(value)
    index = moment.year * 12 + moment.month - 1 + years * 12 + months
    year, month = index // 12, index % 12 + 1
    last = (date(year + month // 12, month % 12 + 1, 1) - timedelta(days=1)).day if (year, month) != (9999, 12) else 31
    moment = moment.replace(year=year, month=month, day=min(moment.day, last))
    total = sum(span(name, count) for name, count in spans.items())
    if total == 0:
        return moment
    if not isinstance(moment, datetime) and total % 86400000000:
        moment = datetime(moment.year, moment.month, moment.day)
    return moment + timedelta(microseconds=total)


def total_micros(delta):
    return (delta.days * 86400 + delta.seconds) * 1000000 + delta.microseconds


def date_diff(value, other, unit="seconds"):
    a, b = moment_of(value), moment_of(other)
    if isinstance(a, datetime) or isinstance(b, datetime):
        a, b = to_datetime(a), to_datetime(b)
    total, size = total_micros(a - b), span(unit, 1)
    return abs(total) // size * (1 if total >= 0 else -1)


def epoch(value, unit="s"):
    moment = to_datetime(moment_of(value))
    base = datetime(1970, 1, 1, tzinfo=moment.tzinfo)
    return total_micros(moment - base) // {"s": 1000000, "ms": 1000, "us": 1}[unit]


def from_epoch(value, unit="s"):
    micros = span({"s": "seconds", "ms": "milliseconds", "us": "microseconds"}[unit], value)
    return datetime(1970, 1, 1, tzinfo=timezone.utc) + timedelta(microseconds=micros)


env.filters.update(
    decimal=decimal_filter,
    from_json=from_json,
    regex_replace=regex_replace,
    regex_search=regex_search,
    regex_findall=regex_findall,
    regex_match=regex_match,
    to_datetime=to_datetime,
    to_date=to_date,
    date_format=lambda value, format: strftime(moment_of(value), format),
    date_add=date_add,
    date_diff=date_diff,
    epoch=epoch,
    from_epoch=from_epoch,
)
env.tests.update(match=regex_match, search=regex_found, date=lambda value: isinstance(value, date))


# ---- requests


def decode(value):
    kind, content = value["t"], value.get("v")
    if kind == "none":
        return None
    if kind == "int":
        return int(content)
    if kind == "float":
        return float(content)
    if kind == "decimal":
        return Exact(content)
    if kind in ("str", "bool"):
        return content
    if kind == "list":
        return [decode(item) for item in content]
    if kind == "dict":
        return {decode(key): decode(item) for key, item in content}
    if kind == "date":
        return date.fromisoformat(content)
    if kind == "datetime":
        return datetime.fromisoformat(content)
    raise ValueError(kind)


# Jinja2 without any of the changes above, for the table of differences.
untouched = Environment()


def plain_value(value):
    return Decimal(format(Decimal(value), "f")) if isinstance(value, Exact) else value


names = {"Exact": "Decimal", "_GroupTuple": "tuple", "Markup": "str", "Undefined": "NoneType"}


def answer(request):
    source = request["source"]
    row = {name: decode(value) for name, value in request["row"].items()}
    if request["mode"] == "plain":
        value = untouched.from_string(source).render(**{name: plain_value(value) for name, value in row.items()})
    elif request["mode"] == "value":
        value = env.compile_expression(source, undefined_to_none=False)(**row)
        if isinstance(value, Undefined):
            value = None
    else:
        value = env.from_string(source).render(**row)
    if isinstance(value, complex):
        raise ValueError("complex")
    text = repr(value)
    # Row 8: a method that is not called is an error.
    if request["mode"] != "plain" and re.search(r"<(built-in|bound) method|<function|<class '", text):
        raise TypeError("a method that is not called")
    kind = type(value).__name__
    return {"ok": True, "type": names.get(kind, kind), "repr": text}


def timed_out(*_):
    raise TimeoutError("too slow")


signal.signal(signal.SIGALRM, timed_out)
for line in sys.stdin:
    signal.alarm(seconds_of_request)
    try:
        result = answer(json.loads(line))
    except (TimeoutError, MemoryError) as error:
        result = {"ok": False, "error": str(error), "tooLarge": True}
    except BaseException as error:
        result = {"ok": False, "error": f"{type(error).__name__}: {error}"}
    finally:
        signal.alarm(0)
    sys.stdout.write(json.dumps(result) + "\n")
    sys.stdout.flush()
