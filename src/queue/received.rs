//! Makes the Received: header of each message.
//!
//! Follows `tests/spec/qmqp.md`, section 11, and RFC 822 for the date, whose day has two digits as in Postfix 3.9 and
//! later.

use crate::sys::time::{self, LocalTime};
use crate::wire::address;

use super::Origin;

/// What the header tells of this host and of the message.
pub struct Received<'a> {
    pub origin: &'a Origin<'a>,
    pub myhostname: &'a str,
    pub mail_name: &'a [u8],
    pub queue_id: &'a str,
    /// The recipient, if it is the only one: several recipients must not learn of each other.
    pub only_recipient: Option<&'a [u8]>,
}

impl Received<'_> {
    /// The three lines of the header, without line ends.
    pub fn lines(&self) -> [Vec<u8>; 3] {
        let peer = self.origin.peer;
        let from = format!("Received: from {0} ({0} [{1}])", peer.name, peer.rfc_addr);
        let mut by = format!("\tby {} (", self.myhostname).into_bytes();
        by.extend_from_slice(self.mail_name);
        by.extend_from_slice(b") with QMQP");
        let date = date(&self.origin.arrival.local());
        let last = match self.only_recipient {
            Some(recipient) => {
                by.extend_from_slice(format!(" id {}", self.queue_id).as_bytes());
                let mut last = b"\tfor <".to_vec();
                last.extend_from_slice(&address::quote(recipient));
                last.extend_from_slice(format!(">; {date}").as_bytes());
                last
            }
            None => format!("\tid {}; {date}", self.queue_id).into_bytes(),
        };
        [from.into_bytes(), by, last]
    }
}

/// `Sun, 22 Nov 2026 13:50:19 +0000 (UTC)`.
pub fn date(at: &LocalTime) -> String {
    let minutes = at.offset_secs / 60;
    // An offset between -59 and -1 minutes loses its sign, as in Postfix: the hours carry it.
    format!(
        "{}, {:02} {} {} {:02}:{:02}:{:02} {:+03}{:02} ({})",
        time::WEEKDAYS.get(at.weekday).unwrap_or(&"Sun"),
        at.day,
        time::MONTHS.get(at.month).unwrap_or(&"Jan"),
        at.year,
        at.hour,
        at.minute,
        at.second,
        minutes / 60,
        (minutes % 60).abs(),
        at.zone,
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(offset_secs: i64, zone: &str, day: i32) -> LocalTime {
        LocalTime {
            year: 2026,
            month: 10,
            day,
            weekday: 0,
            hour: 13,
            minute: 5,
            second: 9,
            offset_secs,
            zone: zone.to_owned(),
        }
    }

    #[test]
    fn dates_of_every_kind_of_zone() {
        for (offset, zone, end) in [
            (0, "UTC", "+0000 (UTC)"),
            (19_800, "IST", "+0530 (IST)"),
            (-12_600, "NST", "-0330 (NST)"),
            (49_500, "+1345", "+1345 (+1345)"),
            (-18_000, "EST", "-0500 (EST)"),
            (-1_800, "X", "+0030 (X)"),
        ] {
            assert_eq!(
                date(&at(offset, zone, 22)),
                format!("Sun, 22 Nov 2026 13:05:09 {end}")
            );
        }
    }

    #[test]
    fn a_day_below_ten_has_two_digits() {
        assert!(date(&at(0, "UTC", 1)).starts_with("Sun, 01 Nov 2026"));
    }
}
