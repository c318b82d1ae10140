//! What may happen often and is logged once a minute, with a count.

use std::time::{Duration, Instant};

/// How long nothing is said after a line.
pub const QUIET: Duration = Duration::from_secs(60);

/// How often something has happened, and when that was said.
#[derive(Debug, Default)]
pub struct Seldom {
    said: Option<Instant>,
    unsaid: u64,
}

impl Seldom {
    /// It has happened: how often, if that is to be said now.
    pub fn happened(&mut self, now: Instant) -> Option<u64> {
        self.unsaid += 1;
        self.due_at(now)
    }

    /// How often it has happened since that was said, if it is time to say it again.
    pub fn due_at(&mut self, now: Instant) -> Option<u64> {
        let is_quiet = self.quiet_until().is_some_and(|until| now < until);
        if self.unsaid == 0 || is_quiet {
            return None;
        }
        self.said = Some(now);
        Some(std::mem::take(&mut self.unsaid))
    }

    /// When there will be something to say.
    pub fn due(&self) -> Option<Instant> {
        self.quiet_until().filter(|_| self.unsaid > 0)
    }

    fn quiet_until(&self) -> Option<Instant> {
        self.said.map(|said| said + QUIET)
    }

    /// Whether there is nothing to remember: nothing is unsaid, and the next time would be said at once.
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
