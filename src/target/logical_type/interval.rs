//! Time spans in the notations that PostgreSQL and ISO 8601 write, if they fit into months, days, and microseconds.
//!
//! <https://www.postgresql.org/docs/current/datatype-datetime.html#DATATYPE-INTERVAL-INPUT>

/// The microseconds of a second.
const MICROSECONDS: i64 = 1_000_000;

/// The longest text that PostgreSQL accepts in every case.
const LONGEST: usize = 200;

pub(super) fn is_interval(text: &str) -> bool {
    let span = match text.strip_prefix('P') {
        Some(rest) => iso(rest),
        None => words(text),
    };
    text.len() <= LONGEST && span.is_some_and(|span| span.fits())
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Unit {
    Year,
    Month,
    Week,
    Day,
    Hour,
    Minute,
    Second,
}

/// The span read so far: at most one number per unit. Signs are ignored, so a span that fits does so with any signs.
#[derive(Debug, Default)]
struct Span {
    seen: Vec<Unit>,
    months: i64,
    days: i64,
}

impl Span {
    /// Adds a number, which may have a fraction, in multiples of a unit.
    fn add(&mut self, number: &str, unit: Unit, times: i64) -> Option<()> {
        if !is_exact(number, unit, times) {
            return None;
        }
        if self.seen.contains(&unit) {
            return None;
        }
        self.seen.push(unit);
        let (whole, fraction) = number.split_once('.').unwrap_or((number, "0"));
        let digits = |text: &str| !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
        if !digits(whole) || !digits(fraction) {
            return None;
        }
        // A fraction spills into the smaller units, by less than one of its own unit.
        let number = (i64::from(whole.parse::<i32>().ok()?) + 1) * times;
        match unit {
            Unit::Year => self.months += number * 12,
            Unit::Month => {
                self.months += number;
                self.days += 30;
            }
            Unit::Week => self.days += number * 7,
            Unit::Day => self.days += number,
            Unit::Hour | Unit::Minute | Unit::Second => {}
        }
        Some(())
    }

    fn fits(&self) -> bool {
        !self.seen.is_empty() && i32::try_from(self.months).is_ok() && i32::try_from(self.days).is_ok()
    }
}

/// Returns whether a number of a unit is a whole number of months or of microseconds. The server rounds all others.
fn is_exact(number: &str, unit: Unit, times: i64) -> bool {
    const DIGITS: usize = 12;
    let fraction = number.split_once('.').map_or("", |(_, fraction)| fraction).trim_end_matches('0');
    if fraction.is_empty() {
        return true;
    }
    let Ok(numerator) = fraction.parse::<i128>() else { return false };
    let denominator = match fraction.len() {
        digits @ ..=DIGITS => 10_i128.pow(digits as u32),
        _ => return false,
    };
    let parts: i128 = match unit {
        Unit::Year => 12 * i128::from(times),
        Unit::Month => 30 * 86_400_000_000,
        Unit::Week => 7 * 86_400_000_000,
        Unit::Day => 86_400_000_000,
        Unit::Hour => 3_600_000_000,
        Unit::Minute => 60_000_000,
        Unit::Second => i128::from(times),
    };
    numerator * parts % denominator == 0
}

/// Reads `1Y2M3W4DT5H6M7.8S`, each number with or without a minus.
fn iso(mut rest: &str) -> Option<Span> {
    let mut span = Span::default();
    let mut in_time = false;
    while !rest.is_empty() {
        if let Some(time) = rest.strip_prefix('T').filter(|time| !in_time && !time.is_empty()) {
            (in_time, rest) = (true, time);
        }
        let number = rest.strip_prefix('-').unwrap_or(rest);
        let end = number.find(|char: char| char.is_ascii_alphabetic())?;
        let unit = match (&number[end..=end], in_time) {
            ("Y", false) => Unit::Year,
            ("M", false) => Unit::Month,
            ("W", false) => Unit::Week,
            ("D", false) => Unit::Day,
            ("H", true) => Unit::Hour,
            ("M", true) => Unit::Minute,
            ("S", true) => Unit::Second,
            _ => return None,
        };
        if span.seen.last().is_some_and(|last| *last >= unit) {
            return None;
        }
        span.add(&number[..end], unit, if unit == Unit::Second { MICROSECONDS } else { 1 })?;
        rest = &number[end + 1..];
    }
    Some(span)
}

/// Reads `@ 1 year 2 mons -3 days 04:05:06.789 ago`, or a bare number of seconds.
fn words(text: &str) -> Option<Span> {
    let words = text.strip_prefix('@').unwrap_or(text).split_ascii_whitespace();
    let mut words: Vec<_> = words.map(|word| word.strip_suffix(',').unwrap_or(word)).collect();
    let ago = words.pop_if(|word| word.eq_ignore_ascii_case("ago")).is_some();
    let mut span = Span::default();
    let mut words = words.into_iter().peekable();
    while let Some(word) = words.next() {
        let unsigned = word.strip_prefix(['-', '+']).unwrap_or(word);
        if unsigned.contains(':') {
            clock(unsigned, &mut span)?;
            return words.next().is_none().then_some(span);
        }
        let end = unsigned.find(|char: char| char.is_ascii_alphabetic()).unwrap_or(unsigned.len());
        let (number, name) = unsigned.split_at(end);
        let name = match name {
            "" if span.seen.is_empty() && !ago && words.peek().is_none() => "seconds",
            "" => words.next()?,
            name => name,
        };
        let (unit, times) = unit(&name.to_ascii_lowercase())?;
        span.add(number, unit, times)?;
    }
    Some(span)
}

fn unit(name: &str) -> Option<(Unit, i64)> {
    Some(match name {
        "millennium" | "millennia" | "mil" | "mils" => (Unit::Year, 1000),
        "century" | "centuries" | "cent" => (Unit::Year, 100),
        "decade" | "decades" | "dec" | "decs" => (Unit::Year, 10),
        "year" | "years" | "yr" | "yrs" | "y" => (Unit::Year, 1),
        "month" | "months" | "mon" | "mons" => (Unit::Month, 1),
        "week" | "weeks" | "w" => (Unit::Week, 1),
        "day" | "days" | "d" => (Unit::Day, 1),
        "hour" | "hours" | "hr" | "hrs" | "h" => (Unit::Hour, 1),
        "minute" | "minutes" | "min" | "mins" | "m" => (Unit::Minute, 1),
        "second" | "seconds" | "sec" | "secs" | "s" => (Unit::Second, MICROSECONDS),
        "millisecond" | "milliseconds" | "msec" | "msecs" | "ms" => (Unit::Second, 1000),
        "microsecond" | "microseconds" | "usec" | "usecs" | "us" => (Unit::Second, 1),
        _ => return None,
    })
}

/// Reads `04:05` or `04:05:06.789`.
fn clock(text: &str, span: &mut Span) -> Option<()> {
    let mut parts = text.split(':');
    span.add(parts.next().filter(|hours| !hours.contains('.'))?, Unit::Hour, 1)?;
    let minutes = parts.next().filter(|minutes| !minutes.contains('.') && is_sixtieth(minutes))?;
    span.add(minutes, Unit::Minute, 1)?;
    let seconds = parts.next().unwrap_or("00");
    span.add(Some(seconds).filter(|seconds| is_sixtieth(seconds))?, Unit::Second, MICROSECONDS)?;
    parts.next().is_none().then_some(())
}

/// Returns whether a number has two digits before its point and is below 60.
fn is_sixtieth(number: &str) -> bool {
    let whole = number.split('.').next().unwrap_or_default();
    whole.len() == 2 && whole < "60"
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_span_is_read_as_iso_8601_and_postgresql_write_it() {
        for text in [
            "P1Y2M3W4DT5H6M7.8S",
            "P-1Y-2M",
            "PT0S",
            "PT36H",
            "P1W",
            "1 year 2 mons -3 days 04:05:06.789",
            "-00:00:01",
            "@ 1 year 2 mons ago",
            "1day",
            "90 MINUTES",
            "1.5 weeks",
            "2147483000 days",
            "178000000 years",
            "5",
            "250 ms",
            "1 day, 2 hours",
            "00:00:01.1234560",
            "1.25 years",
            "1.5 ms",
        ] {
            assert!(is_interval(text), "{text}");
        }
        for text in [
            "",
            "P",
            "PT",
            "P1YT",
            "P1H",
            "PT1Y",
            "P1M2Y",
            "P1Y1Y",
            "PT+1S",
            "p1y",
            " P1Y",
            "P1.Y",
            "1 year 2 years",
            "1 fortnight",
            "1 day 2",
            "ago",
            "5 ago",
            "1 hour 04:05:06",
            "04:05:06 1 day",
            "04:60:00",
            "4:5:6:7",
            "1e3 days",
            "infinity",
            "2147483648 days",
            "2147483647 months 1 year",
            "400000000 weeks",
            "179000000 years",
            "3000000 millennia",
            "00:00:01.1234567",
            "PT0.0000001S",
            "0.5 us",
            "1.1 years",
            "0.33333333333333 hours",
        ] {
            assert!(!is_interval(text), "{text}");
        }
    }
}
