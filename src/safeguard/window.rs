//! The window: the times of the week in which a run may begin and insert.
//!
//! A window follows local time in its zone, so daylight saving needs no special rule: the hour that it skips is absent,
//! and the repeated hour counts twice.

use std::fmt;

use jiff::civil::{Time, Weekday};
use jiff::tz::{AmbiguousOffset, TimeZone};
use jiff::{Timestamp, ToSpan};

use crate::error::{Error, Result};
use crate::spec::{Day, WindowSpec};

/// The days to search for the next edge: a week, and another in case the only opening of a week is in a skipped hour.
const DAYS_AHEAD: i32 = 16;

/// The times of the week in which a run can begin and insert.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Window {
    days: Vec<Weekday>,
    from: Time,
    to: Time,
    zone: TimeZone,
}

/// Whether a window is open, and when that changes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum WindowState {
    /// The window is open.
    Open {
        /// The closing time: the first moment outside of it.
        until: Timestamp,
    },
    /// The window is closed.
    Closed {
        /// The next opening time: the first moment inside of it.
        opens: Timestamp,
    },
}

impl Window {
    /// Returns a window that opens on `days` at `from` and closes at `to`, on the next day if `to` is earlier.
    pub fn new(days: impl IntoIterator<Item = Weekday>, from: Time, to: Time, zone: TimeZone) -> Self {
        Self { days: days.into_iter().collect(), from, to, zone }
    }

    /// Returns the window of a pipeline file.
    ///
    /// # Errors
    /// Returns an error if its time zone is unknown.
    pub fn try_new(spec: &WindowSpec) -> Result<Self> {
        let zone = TimeZone::get(&spec.timezone)
            .map_err(|error| Error::pipeline(format!("unknown time zone `{}`: {error}", spec.timezone)))?;
        let all = [Day::Mon, Day::Tue, Day::Wed, Day::Thu, Day::Fri, Day::Sat, Day::Sun];
        let days = spec.days.as_deref().unwrap_or(&all).iter().map(|day| weekday(*day));
        Ok(Self::new(days, spec.from.time(), spec.to.time(), zone))
    }

    /// Returns whether it is open at a moment, and when that changes.
    pub fn is_open(&self, now: Timestamp) -> WindowState {
        let is_in = self.contains(now);
        // The state can change only at these moments; it ends at the first one with another state.
        let mut moments = self.moments_after(now);
        moments.sort_unstable();
        let edge = moments.into_iter().find(|moment| self.contains(*moment) != is_in).unwrap_or(Timestamp::MAX);
        if is_in { WindowState::Open { until: edge } } else { WindowState::Closed { opens: edge } }
    }

    /// Returns whether a local time is within the window.
    fn contains(&self, moment: Timestamp) -> bool {
        let shown = self.zone.to_datetime(moment);
        let (day, time) = (shown.weekday(), shown.time());
        if self.from < self.to {
            return self.days.contains(&day) && (self.from..self.to).contains(&time);
        }
        // Over midnight, a day has two parts: from its opening on, and until the closing of the day before.
        self.days.contains(&day) && time >= self.from || self.days.contains(&day.previous()) && time < self.to
    }

    /// Returns the moments of the coming days at `from`, at `to`, at midnight, and at changes of the clock.
    fn moments_after(&self, now: Timestamp) -> Vec<Timestamp> {
        let mut moments = Vec::new();
        let today = self.zone.to_datetime(now).date();
        for ahead in 0..=DAYS_AHEAD {
            let Ok(day) = today.checked_add(ahead.days()) else { break };
            for time in [Time::midnight(), self.from, self.to] {
                let shown = day.to_datetime(time);
                let (one, other) = match self.zone.to_ambiguous_timestamp(shown).offset() {
                    AmbiguousOffset::Unambiguous { offset } => (offset, offset),
                    AmbiguousOffset::Gap { before, after } | AmbiguousOffset::Fold { before, after } => (before, after),
                };
                moments.extend([one, other].iter().filter_map(|offset| offset.to_timestamp(shown).ok()));
            }
        }
        let last = moments.iter().max().copied().unwrap_or(now);
        moments.extend(self.zone.following(now).map(|set| set.timestamp()).take_while(|moment| *moment <= last));
        moments.retain(|moment| *moment > now);
        moments
    }

    /// Formats a moment in the window's time zone.
    pub fn local_time(&self, moment: Timestamp) -> String {
        let zone = self.zone.iana_name().unwrap_or("UTC");
        format!("{} {zone}", moment.to_zoned(self.zone.clone()).strftime("%a %Y-%m-%d %H:%M"))
    }
}

impl fmt::Display for Window {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.days.len() < 7 {
            let days: Vec<_> = self.days.iter().map(|day| name(*day)).collect();
            write!(f, "{}, ", days.join(", "))?;
        }
        let zone = self.zone.iana_name().unwrap_or("UTC");
        write!(f, "{} to {} {zone}", self.from.strftime("%H:%M"), self.to.strftime("%H:%M"))
    }
}

const fn weekday(day: Day) -> Weekday {
    match day {
        Day::Mon => Weekday::Monday,
        Day::Tue => Weekday::Tuesday,
        Day::Wed => Weekday::Wednesday,
        Day::Thu => Weekday::Thursday,
        Day::Fri => Weekday::Friday,
        Day::Sat => Weekday::Saturday,
        Day::Sun => Weekday::Sunday,
    }
}

const fn name(day: Weekday) -> &'static str {
    match day {
        Weekday::Monday => "mon",
        Weekday::Tuesday => "tue",
        Weekday::Wednesday => "wed",
        Weekday::Thursday => "thu",
        Weekday::Friday => "fri",
        Weekday::Saturday => "sat",
        Weekday::Sunday => "sun",
    }
}

#[cfg(test)]
mod tests {
    use jiff::civil::{Date, date, time};
    use proptest::prelude::*;

    use super::*;

    const ALL: [Weekday; 7] = [
        Weekday::Monday,
        Weekday::Tuesday,
        Weekday::Wednesday,
        Weekday::Thursday,
        Weekday::Friday,
        Weekday::Saturday,
        Weekday::Sunday,
    ];

    fn berlin(days: &[Weekday], from: (i8, i8), to: (i8, i8)) -> Window {
        let zone = TimeZone::get("Europe/Berlin").unwrap();
        Window::new(days.iter().copied(), time(from.0, from.1, 0, 0), time(to.0, to.1, 0, 0), zone)
    }

    fn at(text: &str) -> Timestamp {
        text.parse().unwrap()
    }

    fn open(until: &str) -> WindowState {
        WindowState::Open { until: at(until) }
    }

    fn closed(opens: &str) -> WindowState {
        WindowState::Closed { opens: at(opens) }
    }

    #[test]
    fn a_window_over_midnight_belongs_to_the_day_on_which_it_opens() {
        // Saturday's alone: 2026-11-28 is a Saturday.
        let window = berlin(&[Weekday::Saturday], (22, 0), (6, 0));
        assert_eq!(window.is_open(at("2026-11-28T05:00:00+01:00")), closed("2026-11-28T22:00:00+01:00"));
        assert_eq!(window.is_open(at("2026-11-28T21:59:59.999+01:00")), closed("2026-11-28T22:00:00+01:00"));
        assert_eq!(window.is_open(at("2026-11-28T22:00:00+01:00")), open("2026-11-29T06:00:00+01:00"));
        assert_eq!(window.is_open(at("2026-11-29T05:59:59.999+01:00")), open("2026-11-29T06:00:00+01:00"));
        assert_eq!(window.is_open(at("2026-11-29T06:00:00+01:00")), closed("2026-12-05T22:00:00+01:00"));
        assert_eq!(window.is_open(at("2026-11-29T22:30:00+01:00")), closed("2026-12-05T22:00:00+01:00"));
    }

    #[test]
    fn windows_that_touch_at_midnight_are_one() {
        let window = berlin(&[Weekday::Friday], (20, 0), (0, 0));
        assert_eq!(window.is_open(at("2026-11-27T23:59:00+01:00")), open("2026-11-28T00:00:00+01:00"));
        assert_eq!(window.is_open(at("2026-11-28T00:00:00+01:00")), closed("2026-12-04T20:00:00+01:00"));
        let window = berlin(&[Weekday::Friday], (0, 0), (23, 0));
        assert_eq!(window.is_open(at("2026-11-26T23:59:00+01:00")), closed("2026-11-27T00:00:00+01:00"));
    }

    #[test]
    fn it_is_an_hour_shorter_in_march_and_an_hour_longer_in_october() {
        let window = berlin(&[Weekday::Saturday], (22, 0), (6, 0));
        for (opens, closes, hours) in [
            ("2026-03-28T22:00:00+01:00", "2026-03-29T06:00:00+02:00", 7),
            ("2026-10-24T22:00:00+02:00", "2026-10-25T06:00:00+01:00", 9),
        ] {
            assert_eq!(window.is_open(at(opens)), open(closes));
            assert_eq!(at(closes).duration_since(at(opens)).as_hours(), hours);
        }
        // Days of 23 and 25 hours, but for the minute before midnight.
        let window = berlin(&ALL, (0, 0), (23, 59));
        for (opens, closes, hours) in [
            ("2026-03-29T00:00:00+01:00", "2026-03-29T23:59:00+02:00", 22),
            ("2026-10-25T00:00:00+02:00", "2026-10-25T23:59:00+01:00", 24),
        ] {
            assert_eq!(window.is_open(at(opens)), open(closes));
            assert_eq!(at(closes).duration_since(at(opens)).as_hours(), hours);
        }
    }

    #[test]
    fn window_in_the_skipped_hour_opens_at_its_end_or_not() {
        // On 2026-03-29 the clocks go from 02:00 to 03:00.
        let window = berlin(&ALL, (2, 30), (5, 0));
        assert_eq!(window.is_open(at("2026-03-29T01:59:00+01:00")), closed("2026-03-29T03:00:00+02:00"));
        assert_eq!(window.is_open(at("2026-03-29T03:00:00+02:00")), open("2026-03-29T05:00:00+02:00"));
        let window = berlin(&ALL, (1, 0), (2, 30));
        assert_eq!(window.is_open(at("2026-03-29T01:59:00+01:00")), open("2026-03-29T03:00:00+02:00"));
        let window = berlin(&[Weekday::Sunday], (2, 15), (2, 45));
        assert_eq!(window.is_open(at("2026-03-29T01:59:00+01:00")), closed("2026-04-05T02:15:00+02:00"));
    }

    #[test]
    fn what_the_clocks_show_twice_counts_twice() {
        // On 2026-10-25 the clocks go from 03:00 back to 02:00.
        let window = berlin(&ALL, (1, 0), (2, 30));
        assert_eq!(window.is_open(at("2026-10-25T01:30:00+02:00")), open("2026-10-25T02:30:00+02:00"));
        assert_eq!(window.is_open(at("2026-10-25T02:30:00+02:00")), closed("2026-10-25T02:00:00+01:00"));
        assert_eq!(window.is_open(at("2026-10-25T02:00:00+01:00")), open("2026-10-25T02:30:00+01:00"));
        let window = berlin(&ALL, (2, 0), (3, 0));
        assert_eq!(window.is_open(at("2026-10-25T02:00:00+02:00")), open("2026-10-25T03:00:00+01:00"));
    }

    #[test]
    fn clocks_that_are_set_at_midnight_change_the_day() {
        // In Havana they go from 01:00 back to 00:00 on 2026-11-01, a Sunday; in Asunción's old rules they skipped midnight.
        let zone = TimeZone::get("America/Havana").unwrap();
        let window = Window::new([Weekday::Saturday], time(23, 0, 0, 0), time(0, 30, 0, 0), zone);
        assert_eq!(window.is_open(at("2026-11-01T00:10:00-04:00")), open("2026-11-01T00:30:00-04:00"));
        assert_eq!(window.is_open(at("2026-11-01T00:40:00-04:00")), closed("2026-11-01T00:00:00-05:00"));
        assert_eq!(window.is_open(at("2026-11-01T00:00:00-05:00")), open("2026-11-01T00:30:00-05:00"));
    }

    #[test]
    fn window_is_shown_in_its_own_zone() {
        let window = berlin(&[Weekday::Saturday, Weekday::Sunday], (22, 0), (6, 0));
        assert_eq!(window.to_string(), "sat, sun, 22:00 to 06:00 Europe/Berlin");
        assert_eq!(berlin(&ALL, (22, 0), (6, 0)).to_string(), "22:00 to 06:00 Europe/Berlin");
        assert_eq!(window.local_time(at("2026-11-28T21:00:00Z")), "Sat 2026-11-28 22:00 Europe/Berlin");
    }

    /// Berlin's summers by hand, in minutes since 1970: from 01:00 UTC on the last Sunday of March to the same of October.
    fn summers() -> Vec<std::ops::Range<i64>> {
        let edge = |year: i16, month: i8| {
            let last = date(year, month, 31);
            let sunday = last.checked_sub(i64::from(last.weekday().to_sunday_zero_offset()).days()).unwrap();
            days_since_1970(sunday) * 1440 + 60
        };
        (2025..=2028).map(|year| edge(year, 3)..edge(year, 10)).collect()
    }

    fn days_since_1970(day: Date) -> i64 {
        i64::from((day - date(1970, 1, 1)).get_days())
    }

    /// What the window means, minute by minute: 1970-01-01 was a Thursday.
    fn is_open_by_hand(days: [bool; 7], from: i64, to: i64, minute: i64, summers: &[std::ops::Range<i64>]) -> bool {
        let is_summer = summers.iter().any(|summer| summer.contains(&minute));
        let shown = minute + if is_summer { 120 } else { 60 };
        let (day, time) = (shown.div_euclid(1440), shown.rem_euclid(1440));
        let opens_on = |day: i64| days[(day + 3).rem_euclid(7) as usize];
        if from < to {
            opens_on(day) && from <= time && time < to
        } else {
            opens_on(day) && time >= from || opens_on(day - 1) && time < to
        }
    }

    /// The minutes of two years, with four times that the clocks are set.
    fn two_years() -> std::ops::Range<i64> {
        days_since_1970(date(2026, 1, 1)) * 1440..days_since_1970(date(2028, 1, 1)) * 1440
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(10))]

        #[test]
        fn window_agrees_with_every_minute_of_two_years(
            days in any::<[bool; 7]>().prop_filter("a day", |days| days.contains(&true)),
            from in prop_oneof![0..1440_i64, 100..200_i64],
            to in prop_oneof![0..1440_i64, 100..200_i64],
            every in 2000..3000_usize,
        ) {
            prop_assume!(from != to);
            let weekdays: Vec<_> = ALL.iter().zip(days).filter(|(_, on)| *on).map(|(day, _)| *day).collect();
            let clock = |minute: i64| ((minute / 60) as i8, (minute % 60) as i8);
            let window = berlin(&weekdays, clock(from), clock(to));
            let summers = summers();
            let by_hand: Vec<bool> =
                two_years().map(|minute| is_open_by_hand(days, from, to, minute, &summers)).collect();
            let moment = |at: usize| Timestamp::from_second((two_years().start + at as i64) * 60).unwrap();
            let mut edge = None;
            // Backwards, so that the next edge is known. Every edge is asked for at the minute before it and at the one that begins there.
            for at in (0..by_hand.len()).rev() {
                prop_assert_eq!(window.contains(moment(at)), by_hand[at], "at {}", moment(at));
                if by_hand.get(at + 1).is_some_and(|next| *next != by_hand[at]) {
                    edge = Some(at + 1);
                }
                let Some(edge) = edge else { continue };
                let begins = at > 0 && by_hand[at - 1] != by_hand[at];
                if edge == at + 1 || begins || at % every == 0 {
                    let edge = moment(edge);
                    let expected = if by_hand[at] { WindowState::Open { until: edge } } else { WindowState::Closed { opens: edge } };
                    prop_assert_eq!(window.is_open(moment(at)), expected, "at {}", moment(at));
                }
            }
        }
    }
}
