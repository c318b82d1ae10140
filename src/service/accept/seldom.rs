//! An event that may be frequent and is logged at most once in a minute, with a count.
//!
//! Keeps the count and the times; the caller writes the line.

use std::time::{Duration, Instant};

/// The pause after a line.
pub const QUIET: Duration = Duration::from_secs(60);

/// The number of events since the last line, and the time of that line.
#[derive(Debug, Default)]
pub struct Seldom {
    said: Option<Instant>,
    unsaid: u64,
}

impl Seldom {
    /// Counts an event. Returns the count if it is to be logged now.
    pub fn happened(&mut self, now: Instant) -> Option<u64> {
        self.unsaid += 1;
        self.due_at(now)
    }

    /// The number of events since the last line, if a line is due.
    pub fn due_at(&mut self, now: Instant) -> Option<u64> {
        let is_quiet = self.quiet_until().is_some_and(|until| now < until);
        if self.unsaid == 0 || is_quiet {
            return None;
        }
        self.said = Some(now);
        Some(std::mem::take(&mut self.unsaid))
    }

    /// When the next line is due.
    pub fn due(&self) -> Option<Instant> {
        self.quiet_until().filter(|_| self.unsaid > 0)
    }

    fn quiet_until(&self) -> Option<Instant> {
        self.said.map(|said| said + QUIET)
    }

    /// Whether nothing needs to be remembered: no event is unlogged, and the next event would be logged at once.
    pub fn is_over(&self, now: Instant) -> bool {
        self.unsaid == 0 && self.quiet_until().is_none_or(|until| until <= now)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_happens_again_is_said_once_a_minute_with_a_count() {
        let begin = Instant::now();
        let at = |seconds| begin + Duration::from_secs(seconds);
        let mut seldom = Seldom::default();
        assert!(seldom.is_over(at(0)) && seldom.due().is_none());
        assert_eq!(seldom.happened(at(0)), Some(1));
        assert_eq!(seldom.due(), None);
        assert!(!seldom.is_over(at(59)) && seldom.is_over(at(60)));
        assert_eq!(seldom.happened(at(1)), None);
        assert_eq!(seldom.happened(at(59)), None);
        assert_eq!(seldom.due(), Some(at(60)));
        assert_eq!(seldom.due_at(at(59)), None);
        assert_eq!(seldom.due_at(at(60)), Some(2));
        assert_eq!(seldom.due_at(at(300)), None);
        assert_eq!(seldom.happened(at(300)), Some(1));
    }
}
