//! Local time, by the C library's time zone.
//!
//! `init` reads the zone file, and must come before a chroot or a filter of system calls; [`Moment::local`] then works
//! in both. Follows tzset(3) and localtime(3). The forms of dates are left to `log` and `queue`.

use std::ffi::CStr;
use std::fmt::{self, Display};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

unsafe extern "C" {
    fn tzset();
}

/// The names of months and weekdays in mail and syslog dates.
pub const MONTHS: [&str; 12] = [
    "Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec",
];
pub const WEEKDAYS: [&str; 7] = ["Sun", "Mon", "Tue", "Wed", "Thu", "Fri", "Sat"];

/// A time of the system's clock, since the epoch.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Moment {
    pub secs: i64,
    pub usecs: u32,
}

/// Seconds and microseconds, the form in a queue file.
impl Display for Moment {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}", self.secs, self.usecs)
    }
}

impl Moment {
    /// The present time. A clock before the epoch counts as the epoch.
    pub fn now() -> Moment {
        let since = SystemTime::now().duration_since(UNIX_EPOCH);
        let since = since.unwrap_or(Duration::ZERO);
        Moment {
            secs: i64::try_from(since.as_secs()).unwrap_or(i64::MAX),
            usecs: since.subsec_micros(),
        }
    }

    /// The time in the zone of [`init`], without opening a file.
    pub fn local(self) -> LocalTime {
        broken_down(self.secs, libc::localtime_r)
    }

    /// The time in UTC.
    pub fn utc(self) -> LocalTime {
        broken_down(self.secs, libc::gmtime_r)
    }
}

/// A time in some zone, in its parts.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct LocalTime {
    pub year: i32,
    /// 0 is January.
    pub month: usize,
    /// 1..=31.
    pub day: i32,
    /// 0 is Sunday.
    pub weekday: usize,
    pub hour: i32,
    pub minute: i32,
    pub second: i32,
    /// Seconds east of Greenwich.
    pub offset_secs: i64,
    /// The zone's abbreviation, such as `CET` or `+0545`.
    pub zone: String,
}

/// Loads the zone named by TZ, or /etc/localtime.
pub fn init() {
    // SAFETY: tzset reads the environment, and no other thread can change it.
    unsafe { tzset() }
}

/// The form of localtime_r and gmtime_r, which take two pointers to live values. A time has 64 bits: the program is for
/// 64-bit systems.
type Convert = unsafe extern "C" fn(*const i64, *mut libc::tm) -> *mut libc::tm;

fn broken_down(secs: i64, convert: Convert) -> LocalTime {
    // SAFETY: `tm` is plain numbers and a pointer, for which all zeros is a valid value.
    let mut tm: libc::tm = unsafe { std::mem::zeroed() };
    // SAFETY: both pointers are to live values of the right type; both functions that callers pass write to `tm` only.
    let done = unsafe { convert(&secs, &mut tm) };
    if done.is_null() {
        // Years beyond an int, which no clock of the program reaches.
        return LocalTime {
            year: 1970,
            day: 1,
            weekday: 4,
            zone: "UTC".to_owned(),
            ..LocalTime::default()
        };
    }
    let zone = if tm.tm_zone.is_null() {
        String::new()
    } else {
        // SAFETY: tm_zone, where not null, is a string of the C library that lives until the next tzset.
        unsafe { CStr::from_ptr(tm.tm_zone) }
            .to_string_lossy()
            .into_owned()
    };
    LocalTime {
        year: tm.tm_year.saturating_add(1900),
        month: usize::try_from(tm.tm_mon).unwrap_or(0),
        day: tm.tm_mday,
        weekday: usize::try_from(tm.tm_wday).unwrap_or(0),
        hour: tm.tm_hour,
        minute: tm.tm_min,
        second: tm.tm_sec,
        offset_secs: tm.tm_gmtoff,
        zone,
    }
}
