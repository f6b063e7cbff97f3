//! Times of day, in UTC: what a clock on the wall shows is known to the reader's machine only.

/// Seconds of a day.
const DAY: u64 = 86_400;
/// The last second of the year 9999.
const LAST: f64 = 253_402_300_799.0;

/// `14:05 UTC`, or `2026-11-28 14:05 UTC` where that is not the day of `now`; both in seconds since 1970.
pub fn moment(at: f64, now: f64) -> String {
    let whole = |seconds: f64| seconds.clamp(0.0, LAST) as u64;
    let (at, now) = (whole(at), whole(now));
    let minutes = at % DAY / 60;
    let time = format!("{:02}:{:02} UTC", minutes / 60, minutes % 60);
    if at / DAY == now / DAY {
        return time;
    }
    let (year, month, day) = date(at / DAY);
    format!("{year}-{month:02}-{day:02} {time}")
}

/// Year, month and day of a day since 1970-01-01. Years are counted from March on, so that the day of a leap year is the last.
fn date(days: u64) -> (u64, u64, u64) {
    let days = days + 719_468;
    let (era, day) = (days / 146_097, days % 146_097);
    let year = (day - day / 1_460 + day / 36_524 - day / 146_096) / 365;
    let day = day - (365 * year + year / 4 - year / 100);
    let month = (5 * day + 2) / 153;
    let (day, january) = (day - (153 * month + 2) / 5 + 1, month >= 10);
    (era * 400 + year + u64::from(january), if january { month - 9 } else { month + 3 }, day)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Expected: `date -u -d @SECONDS`.
    #[test]
    fn moments_have_their_date_where_it_is_another_day() {
        assert_eq!(moment(1_709_208_000.0, 1_709_170_000.0), "12:00 UTC");
        assert_eq!(moment(1_709_208_000.0, 0.0), "2024-02-29 12:00 UTC");
        assert_eq!(moment(1_709_294_399.0, 0.0), "2024-03-01 11:59 UTC");
        assert_eq!(moment(951_782_400.0, 0.0), "2000-02-29 00:00 UTC");
        assert_eq!(moment(4_102_444_799.0, 0.0), "2099-12-31 23:59 UTC");
        assert_eq!(moment(f64::INFINITY, 0.0), "9999-12-31 23:59 UTC");
        assert_eq!(moment(f64::NAN, 0.0), "00:00 UTC");
    }
}
